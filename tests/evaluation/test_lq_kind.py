import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import numpy as np
import pytest
import skimage.data
from basicsr.data.paired_image_dataset import PairedImageDataset
from PIL import Image as PillowImage

from gramgan_plugin.cli.main import main
from gramgan_plugin.data import PairedSRDataset
from gramgan_plugin.evaluation.lq_kind import lq_kind
from gramgan_plugin.prepare.benchmarks import prepare_benchmarks


@pytest.fixture
def edsr(tmp_path: Path) -> Path:
    """A set of one photo in EDSR's layout, its LQ not of MATLAB's kind, and GT of 52x44."""
    photo = PillowImage.fromarray(skimage.data.coffee()[60:104, 90:142])
    for folder, name, image in (("HR", "a.png", photo), ("LR_bicubic/X4", "ax4.png", photo.resize((13, 11)))):
        (tmp_path / "benchmark/Set5" / folder).mkdir(parents=True)
        image.save(tmp_path / "benchmark/Set5" / folder / name)
    return tmp_path / "benchmark"


def roots(gt: Path, lq: Path) -> dict[str, str]:
    return {"dataroot_gt": str(gt), "dataroot_lq": str(lq)}


class TestLqKind:
    def test_feature_made_on_the_fly(self) -> None:
        assert lq_kind({"dataroot_gt": "HR", "lq": "bicubic"}) == "matlab-bicubic, made on the fly"
        assert lq_kind({"dataroot_gt": "HR", "lq": "bicubic-uint8"}) == "matlab-uint8, made on the fly"

    def test_feature_prepared(self, edsr: Path, tmp_path: Path) -> None:
        (kept,) = prepare_benchmarks([edsr], tmp_path / "kept", progress=False)
        assert lq_kind(roots(kept.gt, kept.lq[4])).startswith("EDSR's, up to ")
        (made,) = prepare_benchmarks([edsr], tmp_path / "made", make_lq=True, progress=False)
        assert lq_kind(roots(made.gt, made.lq[4])) == "matlab-bicubic, made by basicsr prepare"
        assert lq_kind(roots(kept.gt, made.lq[4])) == "not recorded"
        (rounded,) = prepare_benchmarks([edsr], tmp_path / "u", make_lq=True, kind="matlab-uint8", progress=False)
        assert lq_kind(roots(rounded.gt, rounded.lq[4])) == "matlab-uint8, made by basicsr prepare"

    def test_feature_not_recorded(self, edsr: Path) -> None:
        assert lq_kind(roots(edsr / "Set5/HR", edsr / "Set5/LR_bicubic/X4")) == "not recorded"
        assert lq_kind({"dataroot_lq": "missing"}) == "not recorded"
        assert lq_kind({"dataroot_gt": ["a", "b"], "dataroot_lq": ["c", "d"]}) == "not recorded"

    def test_feature_packed_and_held_out(self, sample_pair: Path) -> None:
        assert lq_kind(roots(sample_pair / "GT.lmdb", sample_pair / "LQ_x4.lmdb")).startswith("matlab-bicubic")
        assert lq_kind(roots(sample_pair / "test/GT", sample_pair / "test/LQ_x4")).startswith("matlab-bicubic")

    @pytest.mark.parametrize("content", ["", "[]", '{"lq": "matlab-bicubic"}', "[" * 100_000])
    def test_feature_damaged_record(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "dataset.json").write_text(content)
        assert lq_kind(roots(tmp_path / "test/GT", tmp_path / "test/LQ_x4")) == "not recorded"


class TestPreparedSets:
    def test_feature_both_readers_read_them(self, edsr: Path, tmp_path: Path) -> None:
        (report,) = prepare_benchmarks([edsr], tmp_path / "out", progress=False)
        options = {"name": "Set5", "phase": "test", "scale": 4, "io_backend": {"type": "disk"}}
        options |= roots(report.gt, report.lq[4])
        ours = PairedSRDataset(deepcopy(options))[0]
        theirs = PairedImageDataset(deepcopy(options))[0]
        for key, shape in (("gt", (3, 44, 52)), ("lq", (3, 11, 13))):
            assert ours[key].shape == shape
            assert np.array_equal(ours[key], (theirs[key] * 255).round())

    def test_feature_tables_tell_the_kind(
        self, edsr: Path, tiny_options: Any, write_options: Any, workdir: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (report,) = prepare_benchmarks([edsr], workdir / "datasets", progress=False)
        options = {key: value for key, value in tiny_options.items() if key not in ("train", "network_d", "logger")}
        kept = {"name": "Set5", "type": "PairedSRDataset", **roots(report.gt, report.lq[4])}
        made = {"name": "made", "type": "PairedSRDataset", "dataroot_gt": str(edsr / "Set5/HR"), "lq": "bicubic"}
        options["datasets"] = {"test_1": kept, "test_2": made}
        assert main(["test", "-opt", write_options(options)]) == 0
        rows = json.loads((workdir / "results/tiny/results.json").read_text())["rows"]
        kinds = {row["set"]: row["lq"] for row in rows}
        assert kinds["made"] == "matlab-bicubic, made on the fly"
        assert kinds["Set5"].startswith("EDSR's, up to ")
        table = (workdir / "results/tiny/results.md").read_text()
        assert f"- LQ of Set5: {kinds['Set5']}\n" in table
        assert "- LQ of made: matlab-bicubic, made on the fly\n" in table
        assert table in capsys.readouterr().out
