import argparse
import json
from pathlib import Path

import cv2
import pytest
import skimage.data

from gramgan_plugin.cli.main import main
from gramgan_plugin.cli.prepare.collect import _size


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "coffee.png"), skimage.data.coffee()[..., ::-1])
    cv2.imwrite(str(folder / "soft.png"), cv2.GaussianBlur(skimage.data.astronaut()[..., ::-1], (0, 0), 3))
    return folder


class TestCollect:
    def test_smoke(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert main(["prepare", "collect", str(photos), "--out", str(out), "--min-side", "400"]) == 0
        captured = capsys.readouterr()
        assert f"{out}: 1 of 2 photos kept" in captured.out
        assert "1 blurred" in captured.out
        assert captured.out.splitlines()[-1] == f"next: basicsr prepare folder {out}/photos --out {out}-lmdb"
        assert main(["prepare", "folder", f"{out}/photos", "--out", f"{out}-lmdb"]) == 0

    def test_feature_off(self, photos: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = ["prepare", "collect", str(photos), "--out", str(out)]
        for name in ("min-side", "min-sharpness", "max-spectral-drop", "min-jpeg-quality", "max-blockiness"):
            arguments += [f"--{name}", "off"]
        assert main([*arguments, "--hash-distance", "off"]) == 0
        results = [json.loads(line)["result"] for line in (out / "collected.jsonl").read_text().splitlines()]
        assert results == ["kept", "kept"]

    def test_feature_defaults_are_those_of_the_library(self) -> None:
        from gramgan_plugin.cli.main import build_parser
        from gramgan_plugin.prepare.collect.collector import CollectOptions
        from gramgan_plugin.prepare.collect.criteria import Criteria
        from gramgan_plugin.utils.download.limits import Network

        args = build_parser().parse_args(["prepare", "collect", "x", "--out", "y"])
        for name, value in vars(Criteria()).items():
            assert getattr(args, name) == value
        for name in ("max_bytes", "max_total", "timeout", "retries", "allow_private"):
            assert getattr(args, name) == getattr(Network(), name)
        for name in ("connections", "licence", "strip_metadata", "on_error"):
            assert getattr(args, name) == getattr(CollectOptions(), name)
        assert args.report_photos == CollectOptions().shown

    def test_feature_failed_are_named(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        listed = tmp_path / "list.txt"
        listed.write_text("http://127.0.0.1:1/private.jpg\n")
        out = tmp_path / "out"
        assert main(["prepare", "collect", str(photos), str(listed), "--out", str(out), "--min-side", "300"]) == 3
        error = capsys.readouterr().err
        assert "failed http://127.0.0.1:1/private.jpg: 127.0.0.1: an address of this machine" in error

    def test_exception(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert main(["prepare", "collect", str(photos), "--out", str(out)]) == 2
        assert "no photo is kept" in capsys.readouterr().err
        assert (out / "report.html").is_file()
        assert main(["prepare", "collect", str(photos), "--out", str(out), "--min-jpeg-quality", "101"]) == 2
        assert "--min-jpeg-quality 101: must be from" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="2"):
            main(["prepare", "collect", str(photos), "--out", str(out), "--workers", "0"])


class TestSize:
    @pytest.mark.parametrize(
        ("text", "size"), [("7", 7), ("500k", 500_000), ("1.5GB", 1_500_000_000), ("2T", 2 * 10**12)]
    )
    def test_feature(self, text: str, size: int) -> None:
        assert _size(text) == size

    @pytest.mark.parametrize("text", ["", "x", "-1", "1X", "1 G"])
    def test_exception(self, text: str) -> None:
        with pytest.raises(argparse.ArgumentTypeError):
            _size(text)
