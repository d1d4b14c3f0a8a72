import argparse
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from gramgan_plugin.cli.prepare import add_parser
from gramgan_plugin.data.images import decode
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.shrink import shrink
from gramgan_plugin.prepare.verify.run import verify
from gramgan_plugin.prepare.verify.targets import find_target
from tests.functional.matlab_reference import matlab_uint8


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

    @pytest.mark.parametrize("given", [("--lq", "matlab-uint8"), ("--scale", "2", "--lq", "matlab-uint8")])
    def test_feature_lq_of_uint8(self, photos: Path, tmp_path: Path, given: tuple[str, ...]) -> None:
        out, scale = tmp_path / "out", 2 if "--scale" in given else 4
        assert prepare("folder", photos, "--out", out, *given, "--hold-out", "a", "--recursive") == 0
        facts = json.loads((out / "dataset.json").read_text())
        manifest = json.loads((out / f"LQ_x{scale}.lmdb" / "manifest.json").read_text())
        assert facts["lq"] == manifest["lq"] == "matlab-uint8"
        held_out = cv2.imread(str(out / "test" / f"LQ_x{scale}" / "a.png"))
        assert np.array_equal(held_out, matlab_uint8(skimage.data.coffee()[:200, :260, ::-1], scale))
        keys = [json.loads(line) for line in (out / "names.jsonl").read_text().splitlines()]
        photo = cv2.imread(str(photos / "more" / "b.jpg"))
        whole = matlab_uint8(photo[: 210 // scale * scale, : 220 // scale * scale], scale)
        images = LmdbImages(out / f"LQ_x{scale}.lmdb")
        for row in keys:
            x, y, side = (row[name] // scale for name in ("x", "y", "width"))
            assert np.array_equal(decode(images.read(row["key"])), whole[y : y + side, x : x + side])
        assert verify(find_target(out, None, None), progress=False).fine

    def test_feature_folder_named_as_a_kind(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "matlab-uint8").mkdir()
        cv2.imwrite("matlab-uint8/a.png", skimage.data.coffee()[:50, :65, ::-1])
        assert prepare("folder", photos, "--out", "out", "--lq", "./matlab-uint8") == 0
        assert json.loads((tmp_path / "out" / "dataset.json").read_text())["lq"] == "given"

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
        with pytest.raises(UserError, match=r"^2 of 3 photos .*: broken.png .*small.png \(400x191"):
            prepare("folder", photos, "--out", out)
        assert not out.exists()
        assert prepare("folder", photos, "--out", out, "--on-error", "skip") == 3
        assert "skipped broken.png: not an image" in capsys.readouterr().err

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

    def test_feature_dry_run(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (photos / "broken.png").write_bytes(b"nothing")
        out = tmp_path / "out"
        arguments = ("folder", photos, "--out", out, "--recursive", "--dry-run", "--step", 8, "--on-error", "skip")
        assert prepare(*arguments) == 3
        captured = capsys.readouterr()
        # 260x200: 10 columns, 2 rows; 220x208 (of 210): 5 columns, 3 rows.
        assert captured.out == "35 sub-images of 2 photos, 0 photos held out; nothing was written\n"
        assert captured.err == "skipped broken.png: not an image\n"
        assert [path.name for path in tmp_path.iterdir()] == ["photos"]
        with pytest.raises(UserError, match=r"^1 of 3 photos .*: broken.png"):
            prepare(*arguments[:-2])
        (photos / "broken.png").unlink()
        prepare(*arguments[:5], "--step", 8)
        assert f"{out}: 35 sub-images" in capsys.readouterr().out


@pytest.fixture
def div2k(tmp_path: Path) -> Path:
    """Two photos of 624x496 and their LQ, named as in DIV2K."""
    photo = cv2.resize(skimage.data.astronaut()[..., ::-1], (624, 496))
    for number, image in ((1, photo), (2, photo[:, ::-1])):
        for folder, name, pixels in (
            ("HR", f"{number:04d}.png", image),
            ("LR_bicubic/X4", f"{number:04d}x4.png", shrink(np.ascontiguousarray(image), 4)),
        ):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / name), pixels)
    return tmp_path


class TestKnownSets:
    def test_smoke_div2k(self, div2k: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = div2k / "DIV2K"
        assert prepare("div2k", "--hr", div2k / "HR", "--out", out) == 0
        lines = capsys.readouterr().out.splitlines()
        # 192, 240, 0: columns at 0, 240 and 432, rows at 0, 240 and 304.
        assert lines[0].startswith(f"{out}: 18 sub-images of 2 photos, GT 192x192, LQ 48x48")
        assert lines[1:3] == [
            "  2 photos, where DIV2K has 800 for training",
            "  18 sub-images, 44226 expected: 44208 fewer",
        ]
        facts = json.loads((out / "dataset.json").read_text())
        assert facts.items() >= {"form": "div2k", "preset": "paper", "expected": 44226, "lq": "matlab-bicubic"}.items()

    def test_feature_presets(self, div2k: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ("div2k", "--hr", div2k / "HR", "--out", div2k / "out", "--dry-run", "--preset", "esrgan")
        assert prepare(*arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("8 sub-images")
        assert lines[2] == "  8 sub-images, 32592 expected: 32584 fewer"
        assert prepare(*arguments, "--crop-size", 496, "--thresh-size", 500) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == [
            "2 sub-images of 2 photos, 0 photos held out; nothing was written",
            "  2 photos, where DIV2K has 800 for training",
        ]

    def test_feature_lq_given_is_what_is_made(self, div2k: Path) -> None:
        for name, more in (("made", ()), ("given", ("--lq", div2k / "LR_bicubic"))):
            assert prepare("div2k", "--hr", div2k / "HR", *more, "--out", div2k / name) == 0
        for path in ("GT.lmdb/data.mdb", "LQ_x4.lmdb/data.mdb", "LQ_x4.lmdb/meta_info.txt", "names.jsonl"):
            assert (div2k / "made" / path).read_bytes() == (div2k / "given" / path).read_bytes()

    def test_feature_df2k(self, div2k: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(div2k / "HR", div2k / "Flickr2K_HR")
        shutil.copytree(div2k / "LR_bicubic" / "X4", div2k / "other_lq")
        hr, lq = (div2k / "HR", div2k / "Flickr2K_HR"), (div2k / "LR_bicubic", div2k / "other_lq")
        assert prepare("df2k", "--hr", *hr, "--lq", *lq, "--out", div2k / "out", "--encoding", "fast") == 0
        assert "4 photos, where DF2K (DIV2K and Flickr2K) has 3450" in capsys.readouterr().out
        rows = [json.loads(line) for line in (div2k / "out" / "names.jsonl").read_text().splitlines()]
        assert {row["key"][:6]: row["photo"] for row in rows} == {
            "000001": "Flickr2K_HR/0001.png",
            "000002": "Flickr2K_HR/0002.png",
            "000003": "HR/0001.png",
            "000004": "HR/0002.png",
        }
        with pytest.raises(UserError, match="--lq: 1 folders for 2 of GT"):
            prepare("df2k", "--hr", *hr, "--lq", lq[0], "--out", div2k / "other")

    def test_exception_missing_partners(self, div2k: Path) -> None:
        (div2k / "LR_bicubic" / "X4" / "0002x4.png").rename(div2k / "LR_bicubic" / "X4" / "3.png")
        with pytest.raises(UserError, match=r"^1 of 2 photos .*: 0002.png \(has no LQ photo"):
            prepare("flickr2k", "--hr", div2k / "HR", "--lq", div2k / "LR_bicubic", "--out", div2k / "out")

    @pytest.mark.parametrize(
        "more", [("--scale", 5), ("--preset", "none"), ("--encoding", "jpeg"), ("--hold-out", "0001"), ("--lq",)]
    )
    def test_exception_usage(self, div2k: Path, more: tuple[object, ...]) -> None:
        with pytest.raises(SystemExit, match="2"):
            prepare("div2k", "--hr", div2k / "HR", "--out", div2k / "out", *more)


@pytest.mark.parametrize("form", ["div2k", "flickr2k", "df2k", "folder", "sample"])
def test_script(form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each set has a script that passes its arguments on."""
    script = Path(__file__).parents[2] / "datasets_prep" / f"prepare_{form}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(script), run_name="__main__")
    assert f"basicsr prepare {form}" in capsys.readouterr().out


class TestPrepareSample:
    def test_smoke(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.chdir(tmp_path)
        assert prepare("sample", "--step", 192, "--crop-size", 192) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith("train_gramgan_sample.yml")
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
