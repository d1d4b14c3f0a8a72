import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from gramgan_plugin.cli.prepare import add_parser
from gramgan_plugin.data import PairedSRDataset
from gramgan_plugin.errors import UserError


def prepare(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["prepare", *map(str, arguments)])
    return int(args.run(args))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), skimage.data.coffee()[:200, :260, ::-1])
    cv2.imwrite(str(folder / "more" / "b.jpg"), skimage.data.chelsea()[:210, :220, ::-1])
    return folder


class TestPrepareFolder:
    def test_smoke(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "sets" / "one"
        assert prepare("folder", photos, "--out", out) == 0
        captured = capsys.readouterr()
        # 260x200 in windows of 192 every 240: two columns (0 and 68), two rows (0 and 8).
        assert f"{out}: 4 sub-images of 1 photos, GT 192x192, LQ 48x48" in captured.out
        assert f"datasets.train.dataroot_gt: {out / 'GT.lmdb'}" in captured.out
        assert captured.out.splitlines()[-1].endswith("basicsr train -opt train_rrdb_psnr_x4.yml")
        assert "1/1 photos" in captured.err
        opt = {"phase": "train", "scale": 4, "gt_size": 192, "dataroot_gt": str(out / "GT.lmdb")}
        assert len(PairedSRDataset({**opt, "dataroot_lq": str(out / "LQ_x4.lmdb")})) == 4

    def test_feature_options(self, photos: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = [
            "folder",
            photos,
            "--out",
            out,
            "--scale",
            2,
            "--crop-size",
            100,
            "--step",
            50,
            "--recursive",
        ]
        assert prepare(*arguments, "--thresh-size", 60, "--compression-level", 0, "--hold-out", "more/b") == 0
        rows = [json.loads(line) for line in (out / "names.jsonl").read_text().splitlines()]
        assert [(row["x"], row["y"]) for row in rows] == [(x, y) for y in (0, 50, 100) for x in (0, 50, 100, 150)]
        assert (out / "LQ_x2.lmdb" / "meta_info.txt").read_text().splitlines()[0] == "000001_s001.png (50,50,3) 0"
        assert (out / "test" / "LQ_x2" / "b.png").is_file()

    def test_feature_skip_and_stop(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (photos / "broken.png").write_bytes(b"nothing")
        cv2.imwrite(str(photos / "small.png"), np.zeros((191, 400, 3), np.uint8))
        out = tmp_path / "out"
        with pytest.raises(UserError, match=r"2 of 3 photos cannot be used: broken.png .*small.png \(400x191"):
            prepare("folder", photos, "--out", out)
        assert not out.exists()
        assert prepare("folder", photos, "--out", out, "--on-error", "skip") == 3
        assert "skipped broken.png: cannot be decoded" in capsys.readouterr().err

    def test_feature_overwrite(self, photos: Path, tmp_path: Path) -> None:
        assert prepare("folder", photos, "--out", tmp_path / "out") == 0
        with pytest.raises(UserError, match="--overwrite"):
            prepare("folder", photos, "--out", tmp_path / "out")
        assert prepare("folder", photos, "--out", tmp_path / "out", "--overwrite", "--recursive") == 0
        assert (tmp_path / "out" / "names.jsonl").read_text().count("\n") == 8

    def test_exception(self, tmp_path: Path, photos: Path) -> None:
        with pytest.raises(UserError, match="no such folder") as caught:
            prepare("folder", tmp_path / "none", "--out", tmp_path / "out")
        assert caught.value.exit_code == 2
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="no images in it"):
            prepare("folder", tmp_path / "empty", "--out", tmp_path / "out")
        with pytest.raises(SystemExit, match="2"):
            prepare("folder", photos)
        with pytest.raises(SystemExit, match="2"):
            prepare()


class TestPrepareSample:
    def test_smoke(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.chdir(tmp_path)
        assert prepare("sample", "--step", 192, "--crop-size", 192) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith("train_rrdb_psnr_sample.yml")
        out = tmp_path / "datasets" / "sample"
        names = {json.loads(line)["photo"] for line in (out / "names.jsonl").read_text().splitlines()}
        assert names == {
            "chelsea.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "motorcycle_left.png",
            "retina.jpg",
            "rocket.jpg",
        }
        for kind in ("GT", "LQ_x4"):
            assert sorted(p.name for p in (out / "test" / kind).iterdir()) == ["astronaut.png", "coffee.png"]


class TestImports:
    def test_feature_parser_imports_nothing_heavy(self) -> None:
        code = (
            "import argparse, sys; from gramgan_plugin.cli.prepare import add_parser; "
            "add_parser(argparse.ArgumentParser().add_subparsers()); "
            "print(*{'torch', 'numpy', 'cv2', 'lmdb', 'basicsr'} & set(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert done.stdout.strip() == ""
