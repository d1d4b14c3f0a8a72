"""A patch database in training, from building it to resuming with another."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from gramgan_plugin.cli.main import main
from gramgan_plugin.config.resolve import resolve_options
from gramgan_plugin.patchdb.store import open_store
from gramgan_plugin.prepare.sample import sample_photos
from gramgan_plugin.training.loop import train
from tests.messages import assert_message
from tests.vgg_reference import write_weights


def build(folder: Path, name: str, photo: str, count: int, *others: str) -> Path:
    """A database of one of scikit-image's photos."""
    source = folder / f"{name}_photos"
    source.mkdir()
    (source / photo).symlink_to(dict(sample_photos())[photo])
    out = folder / f"{name}.patchdb"
    arguments = ["--source", str(source), "--out", str(out), "--max-patches", str(count), "--center", *others]
    assert main(["patchdb", "build", *arguments]) == 0
    return out


@pytest.fixture
def options(tiny_options: dict[str, Any], workdir: Path) -> dict[str, Any]:
    build(workdir, "textures", "coffee.png", 2000)
    tiny_options["train"]["total_iter"] = 3
    tiny_options["train"]["gram_patch_opt"] |= {"database": "textures.patchdb", "database_use": "also"}
    del tiny_options["val"]
    return tiny_options


def run(options: dict[str, Any], **kwargs: Any) -> Path:
    train(resolve_options(deepcopy(options), is_train=True, **kwargs))
    return Path("experiments") / options["name"]


class TestTraining:
    def test_also(self, options: dict[str, Any]) -> None:
        folder = run(options)
        (record,) = json.loads((folder / "data.json").read_text())["patch_databases"].items()
        store = open_store(Path("textures.patchdb"))
        assert record[0] == "train.gram_patch_opt.database"
        assert record[1] == {"fingerprint": store.fingerprint, "count": store.count, "patch_size": 4}
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "l_g_gram" in row]
        assert len(rows) == 3
        for row in rows:
            kinds = [row[f"gram_{kind}"] for kind in ("original", "downsampled", "affine", "database")]
            assert sum(kinds) == pytest.approx(1, abs=1e-3)
            assert 0 < kinds[3] < 1
            assert row["grad_g_gram"] > 0

    def test_only(self, options: dict[str, Any]) -> None:
        options["train"]["gram_patch_opt"] |= {"database_use": "only", "top_k": 3, "alpha": 0.5, "beta": 0.5}
        folder = run(options)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert {row["gram_database"] for row in rows if "l_g_gram" in row} == {1.0}

    def test_features(self, options: dict[str, Any], workdir: Path) -> None:
        weights = str(write_weights(workdir / "vgg.pth"))
        build(workdir, "features", "coffee.png", 800, "--features", "conv1_1", "--vgg-weights", weights)
        options["train"]["gram_patch_opt"] |= {
            "database": "features.patchdb",
            "features": {"layer": "conv1_1", "vgg_weights": weights},
        }
        folder = run(options)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "l_g_gram" in row]
        assert len(rows) == 3
        assert all(0 < row["gram_database"] < 1 and row["grad_g_gram"] > 0 for row in rows)

    def test_features_of_other_weights(
        self, options: dict[str, Any], workdir: Path, write_options: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        weights = [str(write_weights(workdir / f"{seed}.pth", seed)) for seed in range(2)]
        build(workdir, "features", "coffee.png", 800, "--features", "conv1_1", "--vgg-weights", weights[0])
        capsys.readouterr()
        options["train"]["gram_patch_opt"] |= {
            "database": "features.patchdb",
            "features": {"layer": "conv1_1", "vgg_weights": weights[1]},
        }
        assert main(["train", "-opt", str(write_options(options))]) == 2
        where = "basicsr train: train.gram_patch_opt.features"
        assert_message(capsys.readouterr().err, where, "features.patchdb", "other VGG19 weights")

    def test_the_same_run_again(self, options: dict[str, Any]) -> None:
        options["train"]["gram_patch_opt"]["top_k"] = 4  # the draw is seeded
        losses = []
        for name in ("one", "two"):
            folder = run({**options, "name": name})
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            losses.append([row["l_g_gram"] for row in rows if "l_g_gram" in row])
        assert losses[0] == losses[1]

    def test_another_database_on_resume(self, options: dict[str, Any], workdir: Path) -> None:
        folder = run(options)
        (workdir / "textures.patchdb").rename(workdir / "old.patchdb")
        other = build(workdir, "other", "chelsea.png", 1500)
        other.rename(workdir / "textures.patchdb")
        options["train"]["total_iter"] = 4
        run(options, auto_resume=True)
        count = open_store(workdir / "textures.patchdb").count
        log = (folder / "train.log").read_text()
        lines = re.findall(r"train\.gram_patch_opt\.database: (\d+) patches, with other content, instead of (\d+)", log)
        assert lines == [(str(count), str(open_store(workdir / "old.patchdb").count))]
        record = json.loads((folder / "data.json").read_text())["patch_databases"]
        assert record["train.gram_patch_opt.database"]["count"] == count

    def test_the_same_database_on_resume(self, options: dict[str, Any]) -> None:
        folder = run(options)
        options["train"]["total_iter"] = 4
        run(options, auto_resume=True)
        log = (folder / "train.log").read_text()
        assert "iter:       4" in log
        assert "with other content" not in log

    def test_missing(self, options: dict[str, Any], write_options: Any, capsys: pytest.CaptureFixture[str]) -> None:
        options["train"]["gram_patch_opt"]["database"] = "nowhere.patchdb"
        assert main(["train", "-opt", str(write_options(options))]) == 2
        assert "train.gram_patch_opt.database: " in capsys.readouterr().err
