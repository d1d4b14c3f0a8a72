"""Files are read back by Pillow, OpenCV and tifffile, not by our own reader."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from PIL import ImageCms, features

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference import picture_writing
from gramgan_plugin.inference.picture_files import Picture, read_picture
from gramgan_plugin.inference.picture_writing import FORMATS, check_fits, write_picture
from tests.inference.test_picture_files import needs_avif
from tests.inference.test_picture_metadata import HEIGHT, WIDTH, exif_block

COFFEE = skimage.data.coffee()[100:124, 200:240]  # (24, 40, 3)
DEEP = np.minimum(COFFEE.astype(int) * 257 + np.arange(40)[:, None] * 3, 65535).astype(np.uint16)
RAMP = np.tile(np.linspace(0, 255, 40).round().astype(np.uint8), (24, 1))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta/>"
FULL = Picture(COFFEE, RAMP, SRGB, exif_block(), XMP)
SUFFIXES = [pytest.param(suffix, marks=needs_avif) if suffix == ".avif" else suffix for suffix in FORMATS]


def linear_gray() -> bytes:
    """An ICC profile of gray with gamma 1, made by hand from a profile of LittleCMS with another curve."""
    from tests.data.made_photos import icc

    curve = b"curv" + bytes(4) + (0).to_bytes(4, "big")  # no entries: the identity
    white = b"XYZ " + bytes(4) + b"".join(round(value * 65536).to_bytes(4, "big") for value in (0.9642, 1, 0.8249))
    return icc(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve, b"wtpt": white})


def opencv(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)


class TestExact:
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    @pytest.mark.parametrize(
        "pixels", [COFFEE, DEEP, COFFEE[..., :1], DEEP[..., :1]], ids=["8", "16", "gray", "gray16"]
    )
    @pytest.mark.parametrize("transparent", [False, True])
    def test_feature_values(self, tmp_path: Path, suffix: str, pixels: np.ndarray, transparent: bool) -> None:
        alpha = None if not transparent else RAMP.astype(pixels.dtype) * (1 if pixels.dtype == np.uint8 else 257)
        path = tmp_path / f"picture{suffix}"
        write_picture(Picture(pixels, alpha), path)
        stored = tifffile.imread(path) if suffix == ".tif" else opencv(path)
        stored = np.atleast_3d(stored)
        assert stored.dtype == pixels.dtype
        expected = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=2)
        if stored.shape[2] == 4 and expected.shape[2] == 2:  # OpenCV has no gray with alpha
            expected = expected[..., [0, 0, 0, 1]]
        assert np.array_equal(stored, expected)
        if suffix == ".tif" and transparent:
            with tifffile.TiffFile(path) as file:
                assert file.pages[0].extrasamples == (tifffile.EXTRASAMPLE.UNASSALPHA,)

    @given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**31))
    def test_feature_deep_png_of_any_size(self, height: int, width: int, channels: int, seed: int) -> None:
        samples = np.random.default_rng(seed).integers(0, 65536, (height, width, channels)).astype(np.uint16)
        picture = Picture(samples)
        data = picture_writing._deep_png(samples, picture)
        decoded = np.atleast_3d(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
        order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
        assert np.array_equal(decoded, samples[..., order])

    @given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]), st.integers(0, 2**31))
    def test_feature_deep_tiff_of_any_size(self, height: int, width: int, channels: int, seed: int) -> None:
        samples = np.random.default_rng(seed).integers(0, 65536, (height, width, channels)).astype(np.uint16)
        data = picture_writing._tiff(samples, Picture(samples))
        assert np.array_equal(tifffile.imread(io.BytesIO(data)).reshape(samples.shape), samples)

    @pytest.mark.skipif(int(PillowImage.__version__.partition(".")[0]) < 11, reason="Pillow from 11.0 on")
    @pytest.mark.parametrize("pixels", [COFFEE, DEEP], ids=["8", "16"])
    def test_feature_tiff_in_strips(self, tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(picture_writing, "_STRIP", 5 * pixels[0].nbytes)
        write_picture(Picture(pixels, None, SRGB, exif_block()), tmp_path / "picture.tif")
        assert np.array_equal(tifffile.imread(tmp_path / "picture.tif"), pixels)
        assert np.array_equal(opencv(tmp_path / "picture.tif"), pixels)
        with tifffile.TiffFile(tmp_path / "picture.tif") as file:
            assert len(file.pages[0].dataoffsets) == 5
            assert file.pages[0].iccprofile == SRGB


class TestMetadata:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("pixels", [COFFEE, DEEP], ids=["8", "16"])
    def test_feature_kept(self, tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
        path = tmp_path / f"picture{suffix}"
        write_picture(Picture(pixels, None, SRGB, exif_block(), XMP), path)
        image = PillowImage.open(path)
        if suffix == ".bmp":
            assert "icc_profile" not in image.info
            return
        assert image.info["icc_profile"] == SRGB
        inner = image.getexif().get_ifd(0x8769)
        assert (inner[WIDTH], inner[HEIGHT]) == (40, 24)
        if int(PillowImage.__version__.partition(".")[0]) < 11:
            return
        xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
        assert xmp == XMP

    def test_feature_bmp_is_converted_to_srgb(self, tmp_path: Path) -> None:
        wide = Picture(COFFEE[..., :1], None, linear_gray())
        write_picture(wide, tmp_path / "picture.bmp")
        stored = opencv(tmp_path / "picture.bmp").reshape(24, 40, -1)[..., 0] / 255
        linear = COFFEE[..., 0] / 255
        srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert np.abs(stored - srgb).max() < 2 / 255

    def test_feature_gray_with_a_profile_as_webp(self, tmp_path: Path) -> None:
        write_picture(Picture(COFFEE[..., :1], None, linear_gray()), tmp_path / "picture.webp", quality=100)
        image = PillowImage.open(tmp_path / "picture.webp")
        assert "icc_profile" not in image.info
        linear = COFFEE[..., 0] / 255
        srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert np.abs(np.asarray(image)[..., 1] / 255 - srgb).mean() < 3 / 255

    def test_feature_a_block_too_long_for_jpeg(self, tmp_path: Path) -> None:
        picture = Picture(COFFEE, None, SRGB, exif_block() + bytes(70_000), XMP * 6000)
        write_picture(picture, tmp_path / "picture.jpg")
        image = PillowImage.open(tmp_path / "picture.jpg")
        assert "exif" not in image.info
        assert image.info["icc_profile"] == SRGB
        write_picture(picture, tmp_path / "picture.png")
        assert read_picture(tmp_path / "picture.png").xmp == XMP * 6000


class TestLossy:
    @pytest.mark.parametrize("suffix", [".jpg", ".webp", pytest.param(".avif", marks=needs_avif)])
    def test_feature_quality(self, tmp_path: Path, suffix: str) -> None:
        photo = Picture(skimage.data.astronaut()[:128, 150:278])
        errors, sizes = [], []
        for quality in (30, 95):
            path = tmp_path / f"{quality}{suffix}"
            write_picture(photo, path, quality)
            errors.append(np.abs(np.asarray(PillowImage.open(path)).astype(int) - photo.pixels).mean())
            sizes.append(path.stat().st_size)
        assert errors[1] < errors[0] / 2
        assert sizes[1] > sizes[0]

    @pytest.mark.parametrize("suffix", [".bmp", ".jpg"])
    def test_feature_alpha_is_laid_on_white(self, tmp_path: Path, suffix: str) -> None:
        flat = np.zeros((16, 16, 3), np.uint8)
        alpha = np.repeat(np.array([[0], [255]], np.uint8), 8, axis=0).repeat(16, axis=1)
        write_picture(Picture(flat, alpha), tmp_path / f"picture{suffix}")
        stored = opencv(tmp_path / f"picture{suffix}").astype(int)
        assert np.abs(stored[:8] - 255).max() <= 3
        assert stored[8:].max() <= 3

    @pytest.mark.parametrize("suffix", [".webp", pytest.param(".avif", marks=needs_avif)])
    def test_feature_alpha_kept(self, tmp_path: Path, suffix: str) -> None:
        write_picture(FULL, tmp_path / f"picture{suffix}", quality=95)
        stored = np.asarray(PillowImage.open(tmp_path / f"picture{suffix}"))
        assert np.abs(stored[..., 3].astype(int) - RAMP).max() <= 4

    def test_feature_sixteen_bits_are_rounded(self, tmp_path: Path) -> None:
        levels = np.arange(0, 65536, 3, dtype=np.uint16)[: 200 * 100].reshape(200, 100, 1)
        write_picture(Picture(levels), tmp_path / "picture.bmp")
        assert np.array_equal(opencv(tmp_path / "picture.bmp")[:, :], np.rint(levels[..., 0] / 257).astype(np.uint8))


class TestErrors:
    def test_exception_unknown_suffix(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"picture\.xyz: .* format; .* \.png"):
            write_picture(FULL, tmp_path / "picture.xyz")

    @pytest.mark.parametrize(
        ("name", "size", "limit"),
        [("a.webp", (16384, 1), "16383"), ("a.jpg", (1, 65501), "65500"), ("a.bmp", (40000, 40000), "4 GB")],
    )
    def test_exception_too_large(self, name: str, size: tuple[int, int], limit: str) -> None:
        with pytest.raises(UserError, match=f"{size[0]}x{size[1]} pixels are too large .*{limit}.*write PNG"):
            check_fits(Path(name), *size)
        check_fits(Path("a.png"), *size)

    def test_feature_the_old_file_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "picture.png"
        path.write_bytes(b"old")
        monkeypatch.setattr(picture_writing, "_encode", lambda *_: (_ for _ in ()).throw(ValueError("encoder error 6")))
        with pytest.raises(UserError, match=r"picture\.png: .* PNG \(encoder error 6\)"):
            write_picture(FULL, path)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]

    def test_exception_no_avif(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(features, "check", lambda _: False)
        with pytest.raises(UserError, match="this Pillow cannot write AVIF"):
            check_fits(Path("a.avif"), 4, 4)
