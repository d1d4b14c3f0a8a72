"""Model cards, and OpenModelDB's JSON against the rules of its own checker."""

import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.cli.main import main

ROWS = [
    {"model": "mine", "set": "Set5", "metric": "psnr_y", "mean": 31.4, "per_image": {}},
    {"model": "bicubic", "set": "Set5", "metric": "psnr_y", "mean": 28.42, "per_image": {}},
    {"model": "bicubic", "set": "Set5", "metric": "niqe", "mean": None, "per_image": {}},
]
METRICS = [
    {"name": "psnr_y", "label": "PSNR-Y", "better": "higher", "decimals": 2, "unit": "dB"},
    {"name": "niqe", "label": "NIQE", "better": "lower", "decimals": 2, "unit": ""},
]


@pytest.fixture
def run(workdir: Path, tiny_options) -> dict[str, Any]:
    """A run's folder, and the weights that it has trained."""
    folder = workdir / "experiments/tiny"
    folder.mkdir(parents=True)
    network = {key: value for key, value in tiny_options["network_g"].items() if key not in ("type", "scale")}
    state = RRDBNet(**network).state_dict()
    (folder / "models").mkdir()
    for name, factor in (("200", 0.5), ("latest", 1.0)):
        saved = {key: factor * value for key, value in state.items()}
        torch.save({"params": saved, "params_ema": saved}, folder / f"models/net_g_{name}.pth")
    shutil.copy(folder / "models/net_g_latest.pth", workdir / "net_g.pth")
    tiny_options["train"]["total_iter"] = 300
    tiny_options["datasets"]["train"]["name"] = "photos|*x*"
    (folder / "options.yml").write_text(yaml.safe_dump(tiny_options, sort_keys=False))
    (folder / "data.json").write_text(json.dumps({"images": 77, "batch": 2, "world_size": 4}))
    (folder / "environment.json").write_text(json.dumps({"devices": ["cpu"]}))
    lines = [{"iter": 100, "time": 18.0}, {"iter": 300, "time": 9.0}, {"iter": 300, "metrics": {}}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "torn")
    (workdir / "results.json").write_text(json.dumps({"rows": ROWS, "metrics": METRICS}))
    (workdir / "sources.csv").write_text("author,licence\na,CC0-1.0\nb,CC-BY-4.0\nc,CC0-1.0\n")
    (workdir / "limits.md").write_text("Small text.\n")
    return tiny_options


def _card(*more: str, name: str = "4x-Tiny") -> int:
    return main(["card", "net_g.pth", "--name", name, "--author", "a", "--about", "For tests.", "-o", "out", *more])


OUT = ("--run", "experiments/tiny", "-o", "out")
ALL = ("--run", "experiments/tiny", "--results", "results.json", "--sources", "sources.csv", "--limits", "limits.md")


def test_card(run, capsys):
    assert _card(*ALL, "--licence", "CC-BY-SA-4.0", "--date", "2026-01-31") == 0
    assert capsys.readouterr().out == "out/4x-Tiny.md and .json\n"
    text = Path("out/4x-Tiny.md").read_text()
    parameters = sum(value.numel() for value in torch.load("net_g.pth")["params"].values())
    for line in (
        "# 4x-Tiny",
        f"| parameters | {parameters:,} |",
        f"| SHA-256 | {hashlib.sha256(Path('net_g.pth').read_bytes()).hexdigest()} |",
        "| weights | averaged over training (EMA) |",
        "| licence | CC-BY-SA-4.0 |",
        "| date | 2026-01-31 |",
        "| data | photos\\|\\*x\\* |",
        "| images | 77 |",
        "| crops | 64 pixels |",
        "| iterations | 300 |",
        "| batch | 8 |",
        "| start | random weights |",
        "| losses | L1Loss x 1.0, GramPatchLoss x 1.0, DiscPerceptualLoss x 1, MaskedRaGANLoss x 0.005 |",
        "| time | 1.0 hours |",  # 100 x 18 s and 200 x 9 s
        "| CC0-1.0 | 2 |",
        "| CC-BY-4.0 | 1 |",
        "| Set5 | mine | 31.40 |  |",
        "Small text.",
        "3 photos; 4x-Tiny-photos.csv has the author and the licence of each.",
    ):
        assert line in text.splitlines(), line
    assert Path("out/4x-Tiny-photos.csv").read_bytes() == Path("sources.csv").read_bytes()


def test_openmodeldb(run):
    """The fields and forms that its checker asks for (src/lib/model-props.ts)."""
    assert _card(*ALL, "--author", "b", "--licence", "CC0-1.0", "--url", "https://example.org/a.pth") == 0
    entry = json.loads(Path("out/4x-Tiny.json").read_text())
    assert (entry["name"], entry["author"], entry["license"]) == ("4x-Tiny", ["a", "b"], "CC0-1.0")
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", entry["date"])
    assert (entry["architecture"], entry["size"], entry["scale"]) == ("esrgan", ["8nf", "1nb"], 4)
    assert (entry["inputChannels"], entry["outputChannels"], entry["images"]) == (3, 3, [])
    assert entry["tags"]
    assert entry["description"] == "For tests.\n\nSmall text."
    (resource,) = entry["resources"]
    assert resource == {
        "platform": "pytorch",
        "type": "pth",
        "size": Path("net_g.pth").stat().st_size,
        "sha256": hashlib.sha256(Path("net_g.pth").read_bytes()).hexdigest(),
        "urls": ["https://example.org/a.pth"],
    }
    numbers = ("trainingIterations", "trainingBatchSize", "trainingHRSize", "datasetSize")
    assert [entry[key] for key in numbers] == [300, 8, 64, 77]
    assert (entry["trainingOTF"], entry["dataset"]) == (False, "photos|*x*")


def test_not_finite(run, capsys):
    content = torch.load("net_g.pth", weights_only=True)
    content["params_ema"]["conv_first.bias"][0] = float("nan")
    torch.save(content, "net_g.pth")
    assert _card() == 2
    assert re.search("net_g.pth: conv_first.bias .* not finite", capsys.readouterr().err)


def test_with_nothing_but_weights(run):
    assert _card() == 0
    text = Path("out/4x-Tiny.md").read_text()
    assert "## Where it fails\n\nNot stated." in text
    assert "## Training" not in text
    entry = json.loads(Path("out/4x-Tiny.json").read_text())
    assert (entry["author"], entry["license"]) == ("a", None)
    assert "trainingIterations" not in entry


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--run", "nowhere"), "nowhere/options.yml: no such file"),
        (("--run", "."), "options.yml: no such file"),
        (("--results", "sources.csv"), "sources.csv: not JSON"),
        (("--results", "experiments/tiny/data.json"), "data.json: not the results.json"),
        (("--results", "rows.json"), "rows.json: not the results.json"),
        (("--results", "better.json"), "better.json: not the results.json"),
        (("--results", "empty.json"), "empty.json: has no means"),
        (("--results", os.devnull), f"{os.devnull}: not a file"),
        (("--sources", "results.json"), "results.json: expected a CSV table"),
        (("--sources", "long.csv"), "long.csv: not a CSV table"),
        (("--limits", "net_g.pth"), "net_g.pth: not a text in UTF-8"),
        (("--limits", "."), ".: not a file"),
        (("--run", "other"), "--run: other/models does not have these weights"),
        (("--sources", "net_g.pth"), "net_g.pth: not a text in UTF-8"),
        (("--limits", "nothing.md"), "nothing.md: no such file"),
        (("--date", "31.1.2026"), "--date: expected YYYY-MM-DD, not '31.1.2026'"),
    ],
)
def test_refused(run, arguments, message, capsys):
    for name, content in {
        "rows": {"rows": [{"metric": "psnr_y"}], "metrics": METRICS},
        "better": {"rows": ROWS, "metrics": [{**METRICS[0], "better": "larger"}]},
        "empty": {"rows": [], "metrics": METRICS},
    }.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    Path("long.csv").write_text("author,licence\n" + "a" * 200_000 + ",b\n")
    Path("other/models").mkdir(parents=True)
    Path("other/options.yml").write_text(yaml.safe_dump(run))
    shutil.copy("experiments/tiny/models/net_g_200.pth", "other/models")
    assert _card(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("out").exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_of_an_earlier_iteration(run, suffix):
    """Its own iterations, and the time until then; upstream's loss under its own key of the weight."""
    run["train"] |= {
        1: 2,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 0},
        "perceptual_opt": {"type": "PerceptualLoss", "perceptual_weight": 0.01, "style_weight": 0},
        "extra_terms": {"w": {"type": "WaveletLoss", "loss_weight": 2}},
    }
    Path("experiments/tiny/options.yml").write_text(yaml.safe_dump(run, sort_keys=False))
    shutil.copy("experiments/tiny/models/net_g_200.pth", "mine.pth")  # its name says nothing any more
    assert main(["convert", "mine.pth", "--to", "safetensors", "-o", "mine.safetensors"]) == 0
    file = f"mine.{suffix}"
    assert main(["card", file, "--name", "4x-Tiny", "--author", "a|<b>\n# c", "--about", "A.\udcff", *OUT]) == 0
    lines = Path("out/4x-Tiny.md").read_text().splitlines()
    assert {"| iterations | 200 |", "| time | 0.8 hours |"} <= {*lines}  # 100 x 18 s and 100 x 9 s
    others = "GramPatchLoss x 1.0, DiscPerceptualLoss x 1, MaskedRaGANLoss x 0.005"
    assert f"| losses | {others}, PerceptualLoss x 0.01, WaveletLoss x 2 |" in lines
    assert r"| by | a\|&lt;b&gt;\n# c |" in [line.replace("\\\\n", "\\n") for line in lines]


@pytest.mark.parametrize("name", ["Tiny", "2x-Tiny", "4x-Tiny_2", "4x-a/b", "4x"])
def test_names(run, name, capsys):
    assert _card(name=name) == 2
    assert "--name: OpenModelDB wants 4x-WORD-WORD" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "iterations"),
    [(["latest"], 300), (["best"], 150), (["1000", "30"], 30), (["99999999999"], None), (["best", "latest"], 300)],
)
def test_iterations_by_the_name(run, names, iterations):
    models = Path("experiments/tiny/models")
    for old in models.iterdir():
        old.unlink()
    for name in names:
        shutil.copy("net_g.pth", models / f"net_g_{name}.pth")
    (models / "best.json").write_text(json.dumps({"iter": 150, "metric": "psnr", "value": 1.0, "sets": {}}))
    Path("experiments/tiny/metrics.jsonl").write_text(json.dumps({"iter": 10, "time": 10**400}) + "\n")
    assert _card("--run", "experiments/tiny") == 0
    rows = re.findall(r"^\| iterations \| (\d+) \|$", Path("out/4x-Tiny.md").read_text(), re.M)
    assert rows == ([] if iterations is None else [str(iterations)])


def test_a_name_with_marks(run):
    """The command may be copied, and nothing in it closes the block."""
    name = "a `b`\n```\n<i>;rm.pth"
    Path("net_g.pth").rename(name)
    assert main(["card", name, "--name", "4x-Tiny", "--author", "a", "--about", "A.", *OUT]) == 0
    (line,) = [line for line in Path("out/4x-Tiny.md").read_text().splitlines() if line.startswith("basicsr upscale")]
    assert len(shlex.split(line)) == 7
    assert Path("out/4x-Tiny.md").read_text().count("\n```\n") == 2
