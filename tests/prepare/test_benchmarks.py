"""The layouts are built from real photos; LQ is checked against BasicSR's own imresize."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import skimage.data
from basicsr.utils.matlab_functions import imresize
from PIL import Image as PillowImage
from PIL import ImageCms

import gramgan_plugin  # noqa: F401
from gramgan_plugin.data.benchmark_record import describe_lq, folder_digest, recorded_lq
from gramgan_plugin.data.photos import read_photo
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.benchmark_sources import find_sets
from gramgan_plugin.prepare.benchmarks import default_mod_crop, prepare_benchmarks
from tests.functional.matlab_reference import matlab_uint8
from tests.messages import assert_message

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
COFFEE, CHELSEA, CAMERA = skimage.data.coffee(), skimage.data.chelsea(), skimage.data.camera()
PHOTOS = {  # RGB or gray; (height, width) no multiples of 12
    "baby": COFFEE[20:121, 30:164],  # 134x101
    "bird": CHELSEA[50:147, 100:225],  # 125x97
    "man": CAMERA[100:203, 150:270],  # gray, 120x103
}


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(rgb).save(path)


def cut(image: np.ndarray, mod: int) -> np.ndarray:
    height, width = image.shape[:2]
    return image[: height // mod * mod, : width // mod * mod]


def shrunk(image: np.ndarray, scale: int) -> np.ndarray:
    """BasicSR's double-precision bicubic."""
    planes = np.atleast_3d(image).astype(np.float64) / 255
    levels = np.floor(imresize(planes, 1 / scale) * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return levels[..., 0] if image.ndim == 2 else levels


def coarse(image: np.ndarray, scale: int) -> np.ndarray:
    """Another bicubic: OpenCV's, without antialiasing."""
    height, width = image.shape[:2]
    return cv2.resize(image, (width // scale, height // scale), interpolation=cv2.INTER_CUBIC)


def basicsr_layout(root: Path) -> Path:
    for name, photo in PHOTOS.items():
        write(root / "original" / f"{name}.png", photo)
        write(root / "GTmod12" / f"{name}.png", cut(photo, 12))
        for scale in (2, 3, 4):
            write(root / f"LRbicx{scale}" / f"{name}.png", shrunk(cut(photo, 12), scale))
    return root


def edsr_layout(root: Path, mod: int = 4) -> Path:
    for name, photo in PHOTOS.items():
        write(root / "HR" / f"{name}.png", cut(photo, mod))
        write(root / "LR_bicubic" / "X4" / f"{name}x4.png", coarse(cut(photo, mod), 4))
    return root


def selfexsr_layout(root: Path) -> Path:
    for number, photo in enumerate(PHOTOS.values(), start=1):
        for scale in (2, 4):
            folder = root / f"image_SRF_{scale}"
            for kind, image in (("HR", cut(photo, scale)), ("LR", coarse(cut(photo, scale), scale))):
                write(folder / f"img_{number:03}_SRF_{scale}_{kind}.png", image)
            write(folder / f"img_{number:03}_SRF_{scale}_A+.png", photo)
    return root


def flat_layout(root: Path) -> Path:
    for name, photo in PHOTOS.items():
        write(root / f"{name}.png", photo)
    return root


def hr_layout(root: Path) -> Path:
    for name, photo in PHOTOS.items():
        write(root / "HR" / f"{name}.png", photo)
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "BasicSR": basicsr_layout,
    "EDSR": edsr_layout,
    "SelfExSR": selfexsr_layout,
    "flat folder": flat_layout,
    "HR alone": hr_layout,
}


def prepare(*sources: Path, out: Path, **options: object) -> list:
    return prepare_benchmarks(sources, out, progress=False, **options)


def record_of(folder: Path) -> dict:
    return json.loads((folder / "benchmark.json").read_text())


def pixels(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


class TestSources:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_feature_layout(self, tmp_path: Path, layout: str) -> None:
        (found,) = find_sets(LAYOUTS[layout](tmp_path / "Set5"), (4,))
        assert (found.name, found.layout, found.expected) == ("Set5", layout, 5)
        assert len(found.gt) == 3
        has_lq = layout in ("BasicSR", "EDSR", "SelfExSR")
        assert [files.keys() == found.gt.keys() for files in found.lq.values()] == ([True] if has_lq else [])

    def test_feature_folder_of_sets(self, tmp_path: Path) -> None:
        for folder, make in (("set5", edsr_layout), ("B100", hr_layout), ("Urban100_SR", selfexsr_layout)):
            make(tmp_path / "benchmark" / folder)
        (tmp_path / "benchmark" / "notes").mkdir()
        (tmp_path / "benchmark" / ".cache").mkdir()
        assert sorted(one.name for one in find_sets(tmp_path / "benchmark", (4,))) == ["BSD100", "Set5", "Urban100"]

    @pytest.mark.parametrize(("layout", "part"), [("EDSR", "HR"), ("SelfExSR", "image_SRF_4"), ("BasicSR", "GTmod12")])
    def test_feature_a_part_stands_for_the_set(self, tmp_path: Path, layout: str, part: str) -> None:
        (found,) = find_sets(LAYOUTS[layout](tmp_path / "Set14") / part, (4,))
        assert (found.name, found.layout) == ("Set14", layout)

    def test_exception(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="missing: no such folder"):
            find_sets(tmp_path / "missing", (4,))
        with pytest.raises(UserError, match="no benchmark set found in it"):
            find_sets(tmp_path, (4,))
        flat_layout(tmp_path / "my set")
        with pytest.raises(UserError, match=r"my set: the name of a set"):
            find_sets(tmp_path / "my set", (4,))
        flat_layout(tmp_path / "Set5")
        write(tmp_path / "Set5" / "baby.bmp", PHOTOS["baby"])
        with pytest.raises(UserError, match=r"a second file for baby"):
            find_sets(tmp_path / "Set5", (4,))


class TestPrepare:
    @pytest.mark.parametrize("layout", ["flat folder", "HR alone"])
    def test_feature_lq_is_made(self, tmp_path: Path, layout: str) -> None:
        (report,) = prepare(LAYOUTS[layout](tmp_path / "Set5"), out=tmp_path / "out")
        assert report.gt == tmp_path / "out/Set5/GTmod12"
        assert report.lq == {4: tmp_path / "out/Set5/LRbicx4"}
        for name, photo in PHOTOS.items():
            gt = np.broadcast_to(np.atleast_3d(cut(photo, 12)), (*cut(photo, 12).shape[:2], 3))
            assert np.array_equal(pixels(report.gt / f"{name}.png"), gt)
            made = pixels(report.lq[4] / f"{name}.png").astype(int)
            assert np.abs(made - np.atleast_3d(shrunk(cut(photo, 12), 4))).max() <= 1
        record = record_of(report.folder)
        assert record["mod_crop"] == 12
        assert record["lq"]["4"]["kind"] == "matlab-bicubic"
        assert record["lq"]["4"]["from"] == "made"
        assert_message(report.warnings, "Set5", "3 images, the set has 5")

    def test_feature_basicsr_files_are_copied(self, tmp_path: Path) -> None:
        source = basicsr_layout(tmp_path / "Set5")
        (report,) = prepare(source, out=tmp_path / "out", scales=(2, 3, 4))
        for folder in ("GTmod12", "LRbicx2", "LRbicx3", "LRbicx4"):
            for name in PHOTOS:
                copied = (report.folder / folder / f"{name}.png").read_bytes()
                assert copied == (source / folder / f"{name}.png").read_bytes()
        for lq in record_of(report.folder)["lq"].values():
            assert (lq["kind"], lq["from"]) == ("matlab-bicubic", "BasicSR")
            assert lq["largest_difference"] <= 1

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_feature_edsr_lq_is_matlab_uint8(self, tmp_path: Path, scale: int) -> None:
        source = tmp_path / "Set5"
        for name, photo in PHOTOS.items():
            write(source / "HR" / f"{name}.png", cut(photo, scale))
            lq = matlab_uint8(cut(photo, scale), scale)
            write(source / "LR_bicubic" / f"X{scale}" / f"{name}x{scale}.png", lq)
        (report,) = prepare(source, out=tmp_path / "out", scales=(scale,))
        assert report.kinds == {scale: "matlab-uint8, EDSR's"}
        record = record_of(report.folder)["lq"][str(scale)]
        assert (record["kind"], record["from"]) == ("matlab-uint8", "EDSR")
        assert record["largest_difference"] >= 1  # from matlab-bicubic
        assert recorded_lq(report.gt, report.lq[scale]) == "matlab-uint8, EDSR's"

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_feature_makes_matlab_uint8(self, tmp_path: Path, scale: int) -> None:
        source = basicsr_layout(tmp_path / "Set5")
        (report,) = prepare(source, out=tmp_path / "out", scales=(scale,), make_lq=True, kind="matlab-uint8")
        assert report.kinds == {scale: "matlab-uint8, made by basicsr prepare"}
        for name, photo in PHOTOS.items():
            expected = np.atleast_3d(matlab_uint8(cut(photo, 12), scale))
            made = pixels(report.lq[scale] / f"{name}.png")
            assert np.array_equal(made, np.broadcast_to(expected, made.shape))

    @pytest.mark.parametrize("layout", ["EDSR", "SelfExSR"])
    def test_feature_lq_of_another_kind(self, tmp_path: Path, layout: str) -> None:
        source = LAYOUTS[layout](tmp_path / "Set5")
        (report,) = prepare(source, out=tmp_path / "out")
        assert report.gt.name == "original"  # the LQ does not fit GT cut to multiples of 12
        largest, total, count = 0, 0.0, 0
        for stem, photo in zip(sorted(find_sets(source, (4,))[0].gt), PHOTOS.values(), strict=True):
            given = pixels(report.lq[4] / f"{stem}.png").astype(int)
            assert np.array_equal(given, np.broadcast_to(np.atleast_3d(coarse(cut(photo, 4), 4)), given.shape))
            difference = np.abs(given - np.atleast_3d(shrunk(cut(photo, 4), 4)))
            largest, total, count = max(largest, difference.max()), total + difference.sum(), count + difference.size
        lq = record_of(report.folder)["lq"]["4"]
        assert (lq["kind"], lq["from"]) == ("other", layout)
        assert abs(lq["largest_difference"] - largest) <= 1
        assert lq["mean_difference"] == pytest.approx(total / count, rel=0.01)
        assert f"{layout}'s, up to {lq['largest_difference']} levels off" in report.kinds[4]
        assert any("--lq make gives the usual GTmod12" in warning for warning in report.warnings)

    def test_feature_lq_of_another_kind_that_fits(self, tmp_path: Path) -> None:
        source = edsr_layout(tmp_path / "Set5", mod=12)
        (report,) = prepare(source, out=tmp_path / "out")
        assert report.gt.name == "GTmod12"
        assert record_of(report.folder)["lq"]["4"]["kind"] == "other"
        assert (report.lq[4] / "baby.png").read_bytes() == (source / "LR_bicubic/X4/babyx4.png").read_bytes()

    def test_feature_make(self, tmp_path: Path) -> None:
        (report,) = prepare(edsr_layout(tmp_path / "Set5"), out=tmp_path / "out", make_lq=True)
        assert report.gt.name == "GTmod12"
        assert record_of(report.folder)["lq"]["4"]["from"] == "made"
        made = pixels(report.lq[4] / "bird.png").astype(int)
        assert np.abs(made - shrunk(cut(PHOTOS["bird"], 12), 4)).max() <= 1

    def test_feature_some_scales_given_others_made(self, tmp_path: Path) -> None:
        (report,) = prepare(edsr_layout(tmp_path / "Set5"), out=tmp_path / "out", scales=(2, 4))
        lq = record_of(report.folder)["lq"]
        assert (lq["2"]["from"], lq["4"]["from"]) == ("made", "EDSR")
        assert pixels(report.lq[2] / "baby.png").shape == (50, 66, 3)

    def test_feature_gt_of_the_smallest_factor(self, tmp_path: Path) -> None:
        """SelfExSR cuts GT for each factor; the one that was cut least serves all."""
        (report,) = prepare(selfexsr_layout(tmp_path / "Set5"), out=tmp_path / "out", scales=(2, 4))
        assert pixels(report.gt / "img_001.png").shape == (100, 134, 3)
        assert pixels(report.lq[2] / "img_001.png").shape == (50, 67, 3)
        assert {lq["from"] for lq in record_of(report.folder)["lq"].values()} == {"SelfExSR"}

    def test_feature_scale_8(self, tmp_path: Path) -> None:
        assert [default_mod_crop(scales) for scales in ((4,), (2, 3), (8,), (3, 8))] == [12, 12, 24, 24]
        (report,) = prepare(basicsr_layout(tmp_path / "Set5"), out=tmp_path / "out", scales=(8,))
        assert report.gt.name == "GTmod24"
        made = pixels(report.lq[8] / "baby.png").astype(int)
        assert made.shape == (12, 15, 3)
        assert np.abs(made - shrunk(cut(PHOTOS["baby"], 24), 8)).max() <= 1

    def test_feature_several_sources(self, tmp_path: Path) -> None:
        sources = [edsr_layout(tmp_path / "a/Set5"), flat_layout(tmp_path / "b/Urban100")]
        assert [report.name for report in prepare(*sources, out=tmp_path / "out")] == ["Set5", "Urban100"]
        with pytest.raises(UserError, match=r"a second Set5"):
            prepare(sources[0], flat_layout(tmp_path / "c/Set5"), out=tmp_path / "more")
        assert not (tmp_path / "more").exists()

    def test_feature_prepared_again(self, tmp_path: Path) -> None:
        """What was prepared is a source itself, and the same comes out."""
        (first,) = prepare(edsr_layout(tmp_path / "Set5"), out=tmp_path / "one")
        (second,) = prepare(first.folder, out=tmp_path / "two")
        one, two = record_of(first.folder), record_of(second.folder)
        assert one["gt"] == two["gt"]
        assert one["lq"]["4"]["sha256"] == two["lq"]["4"]["sha256"]
        with pytest.raises(UserError, match=r"Set5: exists already"):
            prepare(first.folder, out=tmp_path / "two")
        prepare(first.folder, out=tmp_path / "two", scales=(2, 4), overwrite=True)
        assert (tmp_path / "two/Set5/LRbicx2").is_dir()

    def test_feature_other_folders_are_left_alone(self, tmp_path: Path) -> None:
        flat_layout(tmp_path / "out/Set5")
        with pytest.raises(UserError, match="was not written by 'prepare'"):
            prepare(hr_layout(tmp_path / "Set5"), out=tmp_path / "out", overwrite=True)
        assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["baby.png", "bird.png", "man.png"]

    def test_feature_colours_stay_as_stored(self, tmp_path: Path) -> None:
        """Papers measure the numbers in the files; a profile is left out, since readers may convert by it."""
        path = Path(skimage.data.__file__).parent / "rocket.jpg"  # in Adobe RGB
        (tmp_path / "photos").mkdir()
        shutil.copy(path, tmp_path / "photos")
        source = PillowImage.open(path)
        source.crop((0, 0, 120, 96)).save(tmp_path / "photos/crop.png", icc_profile=source.info["icc_profile"])
        (report,) = prepare(tmp_path / "photos", out=tmp_path / "out")
        for name, expected in (("rocket", np.asarray(source)), ("crop", np.asarray(source.crop((0, 0, 120, 96))))):
            assert np.array_equal(pixels(report.gt / f"{name}.png"), cut(expected, 12))
            assert np.array_equal(read_photo(report.gt / f"{name}.png")[..., ::-1], cut(expected, 12))

    def test_feature_srgb_profile_is_no_reason_to_encode_again(self, tmp_path: Path) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        (tmp_path / "photos").mkdir()
        PillowImage.fromarray(COFFEE[:96, :120]).save(tmp_path / "photos/a.png", icc_profile=profile)
        (report,) = prepare(tmp_path / "photos", out=tmp_path / "out")
        assert (report.gt / "a.png").read_bytes() == (tmp_path / "photos/a.png").read_bytes()

    def test_exception_partners(self, tmp_path: Path) -> None:
        source = edsr_layout(tmp_path / "Set5")
        (source / "LR_bicubic/X4/birdx4.png").rename(tmp_path / "kept.png")
        with pytest.raises(UserError, match=r"Set5: bird has GT and no LQ \(3 GT, 2 LQ"):
            prepare(source, out=tmp_path / "out")
        write(source / "LR_bicubic/X4/birdx4.png", PHOTOS["bird"][:20, :20])
        with pytest.raises(UserError, match=r"birdx4\.png: .* 20x20 is not 1/4 .* 124x96"):
            prepare(source, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert len(prepare(source, out=tmp_path / "out", make_lq=True)) == 1

    def test_exception_another_picture(self, tmp_path: Path) -> None:
        source = edsr_layout(tmp_path / "Set5")
        write(source / "LR_bicubic/X4/birdx4.png", 255 - pixels(source / "LR_bicubic/X4/birdx4.png"))
        with pytest.raises(UserError, match=r"birdx4\.png: does not show its GT \(\d+ "):
            prepare(source, out=tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"mod_crop_to": 6}, "mod-crop 6: .* scale 4; take 12"),
            ({"scales": (1,)}, "scale 1: must be at least 2"),
        ],
    )
    def test_exception_numbers(self, tmp_path: Path, options: dict[str, object], message: str) -> None:
        with pytest.raises(UserError, match=message):
            prepare(flat_layout(tmp_path / "Set5"), out=tmp_path / "out", **options)

    def test_exception_unusable_images(self, tmp_path: Path) -> None:
        source = flat_layout(tmp_path / "Set5")
        data = (source / "bird.png").read_bytes()
        (source / "bird.png").write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match=r"bird\.png: cut short"):
            prepare(source, out=tmp_path / "out")
        write(source / "bird.png", COFFEE[:11, :40])
        with pytest.raises(UserError, match=r"bird\.png: 40x11, .*mod-crop 12"):
            prepare(source, out=tmp_path / "out")


class TestRecord:
    def test_feature_digest_is_that_of_sha256sum(self, tmp_path: Path) -> None:
        if shutil.which("sha256sum") is None:
            pytest.skip("no sha256sum on this system")
        (report,) = prepare(flat_layout(tmp_path / "Set5"), out=tmp_path / "out")
        done = subprocess.run(
            "LC_ALL=C sha256sum * | sha256sum", shell=True, cwd=report.gt, capture_output=True, text=True, check=True
        )
        assert record_of(report.folder)["gt"]["sha256"] == done.stdout.split()[0] == folder_digest(report.gt)

    def test_feature_changed_lq_is_not_recorded(self, tmp_path: Path) -> None:
        (report,) = prepare(flat_layout(tmp_path / "Set5"), out=tmp_path / "out")
        assert recorded_lq(report.gt, report.lq[4]) == "matlab-bicubic, made by basicsr prepare"
        assert recorded_lq(tmp_path / "Set5", report.lq[4]) is None  # other GT
        write(report.lq[4] / "baby.png", coarse(cut(PHOTOS["baby"], 12), 4))
        assert recorded_lq(report.gt, report.lq[4]) is None

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "gt": 3}', "\x00", "[" * 100_000]
    )
    def test_feature_damaged(self, tmp_path: Path, content: str) -> None:
        (report,) = prepare(flat_layout(tmp_path / "Set5"), out=tmp_path / "out")
        (report.folder / "benchmark.json").write_text(content)
        assert recorded_lq(report.gt, report.lq[4]) is None

    def test_feature_text_is_data(self) -> None:
        assert "\x1b" not in describe_lq({"kind": "matlab-bicubic", "from": "\x1b[2J"})
        assert "\x1b" not in describe_lq({"kind": "matlab-uint8", "from": "\x1b[2J"})


class TestRealSets:
    @pytest.mark.parametrize("name", ["Set5", "Set14"])
    def test_feature_basicsr_lq_is_matlab_bicubic(self, tmp_path: Path, name: str) -> None:
        if not (SHARED / name).is_dir():
            pytest.skip(f"{SHARED / name} is not here")
        (report,) = prepare(SHARED / name, out=tmp_path / "out")
        assert report.warnings == []
        assert report.kinds == {4: "matlab-bicubic, BasicSR's"}
        record = record_of(report.folder)
        assert record["images"] == record["expected"]
        assert record["lq"]["4"]["largest_difference"] <= 1
        assert record["lq"]["4"]["mean_difference"] < 1e-4
        for folder in ("GTmod12", "LRbicx4"):
            assert folder_digest(report.folder / folder) == folder_digest(SHARED / name / folder)

    def test_feature_bsd100(self, tmp_path: Path) -> None:
        if not (SHARED / "BSD100").is_dir():
            pytest.skip(f"{SHARED / 'BSD100'} is not here")
        few = tmp_path / "BSD100" / "HR"
        few.mkdir(parents=True)
        for path in sorted((SHARED / "BSD100/HR").iterdir())[:3]:
            shutil.copy(path, few)
        (report,) = prepare(tmp_path / "BSD100", out=tmp_path / "out")
        assert_message(report.warnings, "BSD100", "3 images, the set has 100")
        assert {pixels(path).shape for path in report.gt.iterdir()} <= {(312, 480, 3), (480, 312, 3)}


class TestCommand:
    def test_smoke(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from gramgan_plugin.cli.main import main

        edsr_layout(tmp_path / "benchmark/Set5")
        flat_layout(tmp_path / "Urban100")
        sources = [str(tmp_path / "benchmark"), str(tmp_path / "Urban100")]
        out = tmp_path / "datasets"
        assert main(["prepare", "benchmarks", *sources, "--out", str(out), "--scale", "4", "--lq", "make"]) == 0
        printed = capsys.readouterr()
        assert f"dataroot_gt: {out / 'Set5/GTmod12'}" in printed.out
        assert f"dataroot_lq: {out / 'Set5/LRbicx4'}  (x4: matlab-bicubic, " in printed.out
        assert_message(printed.err, "warning: Urban100", "3 images, the set has 100")
        arguments = ["prepare", "benchmarks", *sources, "--out", str(tmp_path / "uint8"), "--lq", "matlab-uint8"]
        assert main(arguments) == 0
        assert "LRbicx4  (x4: matlab-uint8, " in capsys.readouterr().out
        assert main(["prepare", "benchmarks", *sources, "--out", str(out)]) == 2
        assert "exists already" in capsys.readouterr().err

    def test_feature_script(self, tmp_path: Path) -> None:
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, root / "datasets_prep/prepare_benchmarks.py", "--help"],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
        )
        assert "--mod-crop" in done.stdout
