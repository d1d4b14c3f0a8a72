"""A new loss is one class in somebody's module and one option block: nothing else of the package changes."""

import json
import sys
from pathlib import Path

import basicsr  # noqa: F401
import pytest

from gramgan_plugin.cli.main import main
from tests.messages import assert_message

MODULE = '''
import torch
from basicsr.utils.registry import LOSS_REGISTRY


@LOSS_REGISTRY.register()
class {prefix}Edges(torch.nn.Module):
    """Differences of neighbours, of SR and GT."""

    form = "image"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, sr, gt):
        return self.loss_weight * (sr.diff(dim=-1) - gt.diff(dim=-1)).abs().mean()


@LOSS_REGISTRY.register()
class {prefix}Means(torch.nn.Module):
    """Means of D's features, of SR and GT."""

    form = "features"
    taps = (1, "conv1_0")

    def forward(self, feats_sr, feats_gt):
        return sum((feats_sr[tap].mean() - feats_gt[tap].mean()).square() for tap in feats_sr)


@LOSS_REGISTRY.register()
class {prefix}Hinge(torch.nn.Module):
    """A hinge loss without means."""

    form = "gan"

    def mask(self, gt, lq=None):
        return None

    def generator(self, real, fake):
        return -fake.mean()

    def discriminator(self, real, fake):
        return torch.relu(1 - real).mean(), torch.relu(1 + fake).mean()
'''


@pytest.fixture
def plugin(workdir: Path, request: pytest.FixtureRequest) -> str:
    """A module in the working directory; names are its own, since BasicSR's registry keeps them."""
    prefix = "".join(part.title() for part in request.node.name.replace("[", "_").replace("]", "").split("_"))
    name = f"losses_of_{prefix.lower()}"
    (workdir / f"{name}.py").write_text(MODULE.format(prefix=prefix), encoding="utf-8")
    sys.modules.pop(name, None)
    return f"{name}:{prefix}"


def test_it_trains(plugin, tiny_options, write_options, capsys):
    module, prefix = plugin.split(":")
    tiny_options["train"] |= {
        "total_iter": 2,
        "extra_terms": {"edges": {"type": f"{prefix}Edges", "loss_weight": 0.5}},
        "disc_perceptual_opt": {"type": f"{prefix}Means"},
        "gan_opt": {"type": f"{prefix}Hinge"},
    }
    tiny_options["logger"]["print_freq"] = 1
    file = write_options(tiny_options)
    assert main(["check", "-opt", file, "--plugin", module]) == 0
    assert main(["train", "-opt", file, "--plugin", module]) == 0
    (folder,) = Path("experiments").iterdir()
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in log if "l_g_edges" in row]
    assert len(rows) == 2
    assert all(row["l_g_edges"] > 0 and row["l_g_dp"] >= 0 and row["l_d_real"] >= 0 for row in rows)
    assert all(row["grad_g_edges"] > 0 for row in rows)


def test_its_form_and_its_options_are_checked(plugin, tiny_options, write_options, capsys):
    module, prefix = plugin.split(":")
    tiny_options["train"]["pixel_opt"] = {"type": f"{prefix}Hinge"}
    tiny_options["train"]["extra_terms"] = {"edges": {"type": f"{prefix}Edges", "loss_wieght": 0.5}}
    assert main(["check", "-opt", write_options(tiny_options), "--plugin", module]) == 2
    printed = capsys.readouterr().err
    assert_message(printed, "basicsr check: train.pixel_opt.type", f"{prefix}Hinge cannot be used here")
    assert_message(printed, "basicsr check: train.extra_terms.edges.loss_wieght", "did you mean 'loss_weight'")
