"""Model cards, and OpenModelDB's JSON against the rules of its own checker."""

import hashlib
import json
import re
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
    torch.save({"params": state, "params_ema": state}, workdir / "net_g.pth")
    tiny_options["datasets"]["train"]["name"] = "photos|*x*"
    (folder / "options.yml").write_text(yaml.safe_dump(tiny_options, sort_keys=False))
    (folder / "data.json").write_text(json.dumps({"images": 77}))
    (folder / "environment.json").write_text(json.dumps({"devices": ["cpu"]}))
    lines = [{"iter": 100, "time": 18.0}, {"iter": 300, "time": 9.0}, {"iter": 300, "metrics": {}}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "torn")
    (workdir / "results.json").write_text(json.dumps({"rows": ROWS, "metrics": METRICS}))
    (workdir / "sources.csv").write_text("file,licence\na.jpg,CC0-1.0\nb.jpg,CC-BY-4.0\nc.jpg,CC0-1.0\n")
    (workdir / "limits.md").write_text("Small text.\n")
    return tiny_options


def _card(*more: str, name: str = "4x-Tiny") -> int:
    return main(["card", "net_g.pth", "--name", name, "--author", "a", "--about", "For tests.", "-o", "out", *more])


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
        "| data | photos\\|\\*x\\*: 77 images, crops of 64 pixels |",
        "| iterations | 4, batch 2 |",
        "| start | random weights |",
        "| losses | L1Loss x 1.0, GramPatchLoss x 1.0, DiscPerceptualLoss x 1, MaskedRaGANLoss x 0.005 |",
        "| time | 1.0 hours |",  # 100 x 18 s and 200 x 9 s
        "| CC0-1.0 | 2 |",
        "| CC-BY-4.0 | 1 |",
        "| Set5 | mine | 31.40 |  |",
        "Small text.",
    ):
        assert line in text.splitlines(), line


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
    assert [entry[key] for key in numbers] == [4, 2, 64, 77]
    assert (entry["trainingOTF"], entry["dataset"]) == (False, "photos|*x*")


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
        (("--results", "experiments/tiny/data.json"), "data.json: not the results.json of `basicsr benchmark`"),
        (("--sources", "results.json"), "results.json: expected a CSV table of photos with a column `licence`"),
        (("--sources", "net_g.pth"), "net_g.pth: not a text in UTF-8"),
        (("--limits", "nothing.md"), "nothing.md: no such file"),
        (("--date", "31.1.2026"), "--date: expected YYYY-MM-DD, not '31.1.2026'"),
    ],
)
def test_refused(run, arguments, message, capsys):
    assert _card(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["Tiny", "2x-Tiny", "4x-Tiny_2", "4x-a/b", "4x"])
def test_names(run, name, capsys):
    assert _card(name=name) == 2
    assert "--name: OpenModelDB wants 4x-WORD-WORD" in capsys.readouterr().err
