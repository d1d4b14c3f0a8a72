"""What the check finds in data sets by lists, headers and checksums: sizes, names, damage."""

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import basicsr
import cv2
import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import check_files
from gramgan_plugin.config.files_images import Deadline, ImageSet, Stored, check_images
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.errors import OptionError, UserError
from tests.messages import assert_message

UPSTREAM = {"io_backend": {"type": "disk"}, "use_hflip": False, "use_rot": False}


def _write(path: Path, height: int, width: int, seed: int = 0) -> None:
    """A piece of a photo."""
    photo = data.astronaut()
    top, left = random.Random(seed).randrange(100), random.Random(seed + 1).randrange(100)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), photo[top : top + height, left : left + width, ::-1])


def _folders(
    count: int = 3, gt: tuple[int, int] = (64, 80), lq: tuple[int, int] = (16, 20), suffix: str = "png"
) -> None:
    for number in range(count):
        _write(Path(f"GT/{number:04}.{suffix}"), *gt, number)
        _write(Path(f"LQ/{number:04}.{suffix}"), *lq, number)


def _options(kind: str, phase: str = "val", **more: Any) -> dict[str, Any]:
    block: dict[str, Any] = {"name": "x", "type": kind, "dataroot_gt": "GT", "dataroot_lq": "LQ"}
    if kind != "PairedSRDataset":
        block |= UPSTREAM
    if phase == "train":
        block["gt_size"] = 32
    return {"scale": 4, "datasets": {phase: block | more}, "val": {}}


def _found(options: dict[str, Any], **how: Any) -> tuple[list[str], list[str]]:
    """(errors, warnings)"""
    try:
        return [], check_files(options, **how)
    except OptionError as error:
        return str(error).splitlines(), []


PAIRED = ["PairedSRDataset", "PairedImageDataset", "RealESRGANPairedDataset"]


class TestSizes:
    @pytest.mark.parametrize("phase", ["train", "val", "test_1"])
    @pytest.mark.parametrize("kind", PAIRED)
    def test_folders_of_another_scale(self, workdir, kind, phase):
        _folders()
        assert _found(_options(kind, phase)) == ([], [])
        for scale in (2, 8):
            (error,) = _found(_options(kind, phase) | {"scale": scale})[0]
            sizes = ("80x64", f"not {scale} times its LQ of 20x16, but 4", "3 of 3 images")
            assert_message(error, f"datasets.{phase}.dataroot_lq: GT/0000.png", *sizes)

    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    def test_lmdbs_of_another_scale(self, sample_pair, kind):
        options = _options(
            kind,
            "train",
            dataroot_gt=str(sample_pair / "GT.lmdb"),
            dataroot_lq=str(sample_pair / "LQ_x4.lmdb"),
            io_backend={"type": "lmdb"},
        )
        assert _found(options) == ([], [])
        (error,) = _found(options | {"scale": 2})[0]
        where = f"datasets.train.dataroot_lq: {sample_pair / 'GT.lmdb'}: 000001_s001"
        assert_message(error, where, "96x96", "not 2 times its LQ of 24x24, but 4", "8 of 8 images")
        options["datasets"] = {"val": options["datasets"]["train"]}
        (error,) = _found(options | {"scale": 2})[0]
        assert error.startswith("datasets.val.dataroot_lq: ")

    def test_lists_of_lmdbs(self, sample_pair):
        roots = {
            "dataroot_gt": [str(sample_pair / "GT.lmdb")] * 2,
            "dataroot_lq": [str(sample_pair / "LQ_x4.lmdb")] * 2,
        }
        options = _options("PairedSRDataset", "train", **roots)
        assert _found(options) == ([], [])
        options["datasets"]["train"]["gt_size"] = 128
        (error,) = _found(options)[0]
        where = f"datasets.train.dataroot_gt: {sample_pair / 'GT.lmdb'}: 000001_s001"
        assert_message(error, where, "96x96 is smaller than gt_size 128", "16 of 16 images")

    @pytest.mark.parametrize("kind", PAIRED)
    def test_folders_below_gt_size(self, workdir, kind):
        _folders()
        (error,) = _found(_options(kind, "train", gt_size=68))[0]
        kind = ("80x64 is smaller than gt_size 68", "3 of 3 images")
        assert_message(error, "datasets.train.dataroot_gt: GT/0000.png", *kind)
        assert _found(_options(kind, "train", gt_size=64)) == ([], [])

    def test_made_lq(self, workdir):
        _folders(gt=(67, 67))
        options = _options("PairedSRDataset", "train", gt_size=64, lq="bicubic")
        del options["datasets"]["train"]["dataroot_lq"]
        assert _found(options) == ([], [])
        options["datasets"]["train"]["gt_size"] = 68
        kind = "67x67 is smaller than gt_size 68"
        assert_message(_found(options)[0][0], "datasets.train.dataroot_gt: GT/0000.png", kind)

    def test_gt_of_benchmarks_that_was_not_cut(self, workdir):
        _folders(gt=(64 + 11, 80 + 7))  # LQ was made from GT cut to multiples of 12
        assert _found(_options("PairedSRDataset", "val")) == ([], [])
        assert "is not 4 times" in _found(_options("PairedSRDataset", "train"))[0][0]

    @settings(max_examples=25, deadline=None)
    @given(st.tuples(*[st.integers(30, 50)] * 2), st.tuples(*[st.integers(7, 13)] * 2), st.sampled_from([28, 32, 36]))
    def test_as_the_data_set_itself_finds(self, tmp_path_factory, gt, lq, crop):
        """In training, an error if and only if reading the image fails."""
        folder = tmp_path_factory.mktemp("pair")
        _write(folder / "GT/a.png", *gt)
        _write(folder / "LQ/a.png", *lq)
        roots = {"dataroot_gt": str(folder / "GT"), "dataroot_lq": str(folder / "LQ")}
        errors, _ = _found(_options("PairedSRDataset", "train", gt_size=crop, **roots))
        dataset = PairedSRDataset({"phase": "train", "scale": 4, "gt_size": crop, **roots})
        try:
            dataset[0]
        except UserError:
            assert errors
        else:
            assert errors == []

    def test_a_few_are_skipped_in_training(self, workdir):
        _folders(1, gt=(32, 32), lq=(8, 8))
        for number in range(1, 120):
            for root in ("GT", "LQ"):
                shutil.copy(f"{root}/0000.png", f"{root}/{number:04}.png")
        _write(Path("LQ/0007.png"), 9, 8)
        errors, warnings = _found(_options("PairedSRDataset", "train"))
        assert errors == []
        (warning,) = warnings
        kind = ("32x32", "not 4 times its LQ of 8x9", "skipped")
        assert_message(warning, "datasets.train.dataroot_lq: GT/0007.png", *kind)
        (error,) = _found(_options("PairedSRDataset", "train", max_unreadable=0))[0]
        assert error.startswith("datasets.train.dataroot_lq: GT/0007.png: ")
        _write(Path("LQ/0008.png"), 9, 8)
        (error,) = _found(_options("PairedSRDataset", "train"))[0]
        assert error.endswith("(2 of 120 images)")


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _no_image(path: Path) -> None:
    path.write_text("<html>")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


class TestDamage:
    @pytest.mark.parametrize("damage", [_cut_short, _half, _one_byte, _no_image, _empty])
    @pytest.mark.parametrize("kind", PAIRED)
    def test_png(self, workdir, kind, damage):
        _folders()
        damage(Path("LQ/0001.png"))
        (error,) = _found(_options(kind))[0]
        assert error.startswith("datasets.val.dataroot_lq: LQ/0001.png: ")
        assert "\n" not in error

    @pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp", "tif"])
    def test_others(self, workdir, suffix):
        _folders(suffix=suffix)
        assert _found(_options("PairedSRDataset")) == ([], [])
        _half(Path(f"GT/0002.{suffix}"))
        (error,) = _found(_options("PairedSRDataset"))[0]
        assert error.startswith(f"datasets.val.dataroot_gt: GT/0002.{suffix}: ")

    def test_what_only_opencv_reads(self, workdir):
        _folders()
        for root in ("GT", "LQ"):
            for path in list(Path(root).iterdir()):
                cv2.imwrite(str(path.with_suffix(".jp2")), cv2.imread(str(path)))
                path.unlink()
        for phase in ("train", "val"):
            assert _found(_options("PairedImageDataset", phase)) == ([], [])

    def test_nothing_reaches_the_terminal(self, workdir, capfd):
        """libpng and libjpeg write what they find to the process's stderr."""
        _folders()
        _folders(suffix="jpg")
        for suffix in ("png", "jpg"):
            _one_byte(Path(f"GT/0000.{suffix}"))
            _half(Path(f"GT/0001.{suffix}"))
        options = _options("SingleImageDataset", dataroot_lq="GT")
        del options["datasets"]["val"]["dataroot_gt"]
        capfd.readouterr()
        assert len(_found(options)[0]) == 1
        assert capfd.readouterr() == ("", "")

    def test_in_an_lmdb(self, workdir):
        _folders()
        for root in ("GT", "LQ"):
            environment = lmdb.open(f"{root}.lmdb", map_size=2**22, lock=False)
            names = []
            with environment, environment.begin(write=True) as transaction:
                for path in sorted(Path(root).iterdir()):
                    content, (height, width) = path.read_bytes(), cv2.imread(str(path)).shape[:2]
                    transaction.put(
                        path.stem.encode(), content[:-9] if (root, path.stem) == ("GT", "0001") else content
                    )
                    names.append(f"{path.name} ({height},{width},3) 1\n")
            Path(root + ".lmdb", "meta_info.txt").write_text("".join(names))
        roots = {"dataroot_gt": "GT.lmdb", "dataroot_lq": "LQ.lmdb", "io_backend": {"type": "lmdb"}}
        for kind in ("PairedSRDataset", "PairedImageDataset"):
            (error,) = _found(_options(kind, **roots))[0]
            assert_message(error, "datasets.val.dataroot_gt: GT.lmdb: 0001", "cut short")

    def test_what_a_run_does_about_it(self, workdir):
        """Training and tests leave such images out, unless they are to stop at them; the check calls them mistakes."""
        _folders()
        _cut_short(Path("GT/0001.png"))
        options = _options("PairedSRDataset")
        what = "datasets.val.dataroot_gt: GT/0001.png: cut short"
        for is_train in (True, False):
            assert _found(options, is_train=is_train) == ([], [f"{what}; such images are skipped"])
        assert _found(options) == ([what], [])
        options["val"]["on_error"] = "skip"
        assert _found(options) == ([], [f"{what}; such images are skipped"])
        options["val"]["on_error"] = "stop"
        for is_train in (True, False, None):
            assert _found(options, is_train=is_train) == ([what], [])
        options["datasets"] = {"test": options["datasets"]["val"]}
        assert _found(options, is_train=True) == ([], []), "it has no use for test sets"

    def test_the_command(self, tiny_options, write_options, workdir, capsys):
        _folders()
        tiny_options["datasets"]["val"] |= {"dataroot_gt": "GT", "dataroot_lq": "LQ"}
        name = write_options(tiny_options)
        assert main(["check", "-opt", name]) == 0
        assert "no mistakes found" in capsys.readouterr().out
        _cut_short(Path("LQ/0002.png"))
        assert main(["check", "-opt", name]) == 2
        printed = capsys.readouterr()
        assert_message(printed.err, "basicsr check: datasets.val.dataroot_lq: LQ/0002.png", "cut short")
        assert printed.out == ""


def test_what_pillow_logs(workdir, caplog):
    """Of a TIFF of 64,000 samples a pixel, for one; nothing of it reaches the terminal."""
    _folders(suffix="tif")
    content = bytearray(Path("GT/0000.tif").read_bytes())
    tag = content.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel, one short
    content[tag + 8 : tag + 10] = struct.pack("<H", 64000)
    Path("GT/0000.tif").write_bytes(content)
    assert _found(_options("PairedSRDataset"))[0][0].startswith("datasets.val.dataroot_gt: GT/0000.tif: ")
    assert caplog.records == []


class TestTime:
    def test_what_there_was_no_time_for(self, workdir):
        _folders()
        _cut_short(Path("GT/0001.png"))
        errors, (warning,) = _found(_options("PairedSRDataset"), seconds=0)
        assert errors == []
        assert_message(warning, "datasets.val", "3 of 3 images not checked", "0 seconds")

    def test_lists_take_none(self, sample_pair):
        roots = {"dataroot_gt": str(sample_pair / "GT.lmdb"), "dataroot_lq": str(sample_pair / "LQ_x4.lmdb")}
        options = _options("PairedSRDataset", "train", gt_size=128, **roots)
        assert "smaller than gt_size 128" in _found(options, seconds=0)[0][0]

    def test_some(self, workdir):
        """The first that are read are spread over the set, and what is wrong with them is said."""
        _folders(count=20)
        for number in range(20):
            _cut_short(Path(f"GT/{number:04}.png"))

        class Steps(Deadline):
            """Is over at the sixth time that it is asked."""

            asked = 0

            def is_over(self) -> bool:
                self.asked += 1
                return self.asked > 5

        pairs = [(Stored(f"GT/{number:04}.png"), Stored(f"LQ/{number:04}.png")) for number in range(20)]
        found = Findings()
        check_images(ImageSet("datasets.val", pairs, 4, None, False, 0), Steps(3), found)
        (warning,), (error,) = found.warnings, found.errors
        assert_message(warning, "datasets.val", "15 of 20 images not checked", "3 seconds")
        assert error.endswith("cut short (5 of 5 images)")


LISTED: list[tuple[str, str, Callable[[str], str]]] = [
    ("PairedImageDataset", "meta_info_file", lambda name: f"{name} (64,80,3)"),
    ("SingleImageDataset", "meta_info_file", lambda name: name),
    ("RealESRGANDataset", "meta_info", lambda name: f"{name} (64,80,3)"),
    ("RealESRGANPairedDataset", "meta_info", lambda name: f"{name}, {name}"),
]


@pytest.mark.parametrize(("kind", "key", "line"), LISTED, ids=[kind for kind, _, _ in LISTED])
class TestLists:
    @pytest.fixture
    def options(self, workdir, kind, key, line) -> dict[str, Any]:
        _folders()
        options = _options(kind, **{key: "list.txt"})
        if kind == "SingleImageDataset":
            del options["datasets"]["val"]["dataroot_gt"]
        if kind == "RealESRGANDataset":
            del options["datasets"]["val"]["dataroot_lq"]
        self.write(line, "0000.png", "0001.png", "0002.png")
        return options

    def write(self, line: Callable[[str], str], *names: str, end: str = "\n") -> None:
        Path("list.txt").write_text("\n".join(line(name) if name else "" for name in names) + end)

    def test_smoke(self, options, kind, key, line):
        assert _found(options) == ([], [])
        self.write(line, "0002.png", end="")
        assert _found(options) == ([], [])

    def test_absent_files(self, options, kind, key, line):
        self.write(line, "0000.png", "0009.png", "0008.png")
        (error,) = _found(options)[0]
        root = "LQ" if kind == "SingleImageDataset" else "GT"
        assert_message(error, f"datasets.val.{key}: list.txt", f"{root}/0009.png, which does not exist (and ")

    @pytest.mark.parametrize("end", ["\n\n", "\n  \n"])
    def test_a_blank_last_line(self, options, kind, key, line, end):
        self.write(line, "0000.png", "0001.png", end=end)
        (error,) = _found(options)[0]
        assert_message(error, f"datasets.val.{key}: list.txt", "line 3 is blank")

    def test_a_blank_line(self, options, kind, key, line):
        self.write(line, "0000.png", "", "0001.png")
        (error,) = _found(options)[0]
        assert_message(error, f"datasets.val.{key}: list.txt", "line 2 is blank")

    @pytest.mark.parametrize("content", [b"", b"\n"])
    def test_an_empty_one(self, options, kind, key, line, content):
        Path("list.txt").write_bytes(content)
        (error,) = _found(options)[0]
        assert_message(error, f"datasets.val.{key}: list.txt", "no images")

    def test_no_text(self, options, kind, key, line):
        Path("list.txt").write_bytes(b"\xff\xfe\0")
        (error,) = _found(options)[0]
        assert_message(error, f"datasets.val.{key}: list.txt", "cannot be read")

    def test_damage(self, options, kind, key, line):
        root = "GT" if kind == "RealESRGANDataset" else "LQ"
        _half(Path(root, "0001.png"))
        (error,) = _found(options)[0]
        assert error.startswith(f"datasets.val.dataroot_{root.lower()}: {root}/0001.png: ")


class TestNames:
    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    @pytest.mark.parametrize("template", ["{}x4", "LR_{}", "a{}_b"])
    def test_those_of_gt_and_something_more(self, workdir, kind, template):
        _folders()
        for path in list(Path("LQ").iterdir()):
            path.rename(path.with_stem(template.replace("{}", path.stem)))
        (error,) = _found(_options(kind))[0]
        assert error.startswith("datasets.val.dataroot_lq: ")
        assert error.endswith(f"; set filename_tmpl: '{template}'")
        assert _found(_options(kind, filename_tmpl=template)) == ([], []), "which is right"

    @pytest.mark.parametrize("kind", ["PairedSRDataset", "PairedImageDataset"])
    def test_other_names(self, workdir, kind):
        _folders()
        Path("LQ/0001.png").rename("LQ/0001x4.png")
        (error,) = _found(_options(kind))[0]
        assert "filename_tmpl" not in error

    def test_more_lq_than_gt(self, workdir):
        _folders()
        Path("GT/0001.png").unlink()
        (error,) = _found(_options("PairedImageDataset"))[0]
        assert_message(error, "datasets.val.dataroot_lq: LQ/0001.png", "has no GT")
        with pytest.raises(AssertionError):  # as it would end there
            basicsr.data.paired_image_dataset.PairedImageDataset({**_options("PairedImageDataset")["datasets"]["val"]})

    def test_the_home_folder(self, workdir, monkeypatch):
        monkeypatch.setenv("HOME", str(workdir))
        _folders()
        Path("list.txt").write_text("0000.png\n")
        roots = {"dataroot_gt": "~/GT", "dataroot_lq": "~/LQ", "meta_info_file": "~/list.txt"}
        options = _options("PairedImageDataset", **roots)
        assert _found(options) == ([], [])
        from gramgan_plugin.config import resolve_options

        block = resolve_options(options | {"name": "x", "num_gpu": 0}, is_train=False)["datasets"]["val"]
        assert len(basicsr.data.paired_image_dataset.PairedImageDataset(block)) == 1


def test_pixels_are_not_decoded(workdir):
    """A photo of many pixels and few bytes takes no memory."""
    _folders(1)
    flat = np.zeros((5000, 5000, 3), np.uint8)
    cv2.imwrite("GT/0000.png", flat, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    (error,) = _found(_options("PairedSRDataset", "train"))[0]
    assert_message(error, "datasets.train.dataroot_lq: GT/0000.png", "5000x5000", "not 4 times its LQ of 20x16")
