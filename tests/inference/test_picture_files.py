"""Pictures as they are stored: expected values come from Pillow, OpenCV, LittleCMS or arithmetic in the test."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image as PillowImage
from PIL import ImageCms, features

from gramgan_plugin.data.photos import PhotoError
from gramgan_plugin.inference.picture_files import Picture, read_picture
from tests.data.made_photos import chunk, handmade_png, neutral_inks, saved

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

COFFEE = skimage.data.coffee()[100:124, 200:240]  # (24, 40, 3)
DEEP = np.minimum(COFFEE.astype(int) * 257 + np.arange(40)[:, None] * 3, 65535).astype(np.uint16)
RAMP = np.tile(np.linspace(0, 255, 40).round().astype(np.uint8), (24, 1))  # some pixels are fully transparent
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION = 0x0112
TURNED = {  # EXIF's orientation -> the upright picture, of the stored one
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}
needs_avif = pytest.mark.skipif(
    "avif" not in features.modules or not features.check("avif"), reason="this Pillow has no AVIF"
)
AVIF = pytest.param("AVIF", marks=needs_avif)


@pytest.fixture
def read(tmp_path: Path):
    def function(data: bytes, **options: int) -> Picture:
        (tmp_path / "picture").write_bytes(data)
        return read_picture(tmp_path / "picture", **options)

    return function


def photo(samples: np.ndarray = COFFEE) -> PillowImage.Image:
    return PillowImage.fromarray(samples)


def with_alpha(samples: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_3d(samples), alpha[..., None]], axis=2)


class TestEightBits:
    @pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
    def test_feature_exact_values(self, read, form: str) -> None:
        picture = read(saved(photo(), form))
        assert picture.pixels.dtype == np.uint8
        assert np.array_equal(picture.pixels, COFFEE)
        assert picture.alpha is picture.icc_profile is picture.exif is picture.xmp is None

    @pytest.mark.parametrize("form", ["JPEG", "WEBP", AVIF])
    def test_feature_lossy_as_pillow_decodes_them(self, read, form: str) -> None:
        data = saved(photo(), form, quality=90)
        assert np.array_equal(read(data).pixels, np.asarray(PillowImage.open(io.BytesIO(data))))

    def test_feature_gray_stays_gray(self, read) -> None:
        assert np.array_equal(read(saved(photo(RAMP), "PNG")).pixels, RAMP[..., None])

    def test_feature_one_bit(self, read) -> None:
        picture = read(saved(photo(RAMP).convert("1"), "PNG"))
        assert picture.pixels.shape == (24, 40, 1)
        assert set(np.unique(picture.pixels)) == {0, 255}

    def test_feature_palette(self, read) -> None:
        image = photo().quantize(16)
        assert np.array_equal(read(saved(image, "PNG")).pixels, np.asarray(image.convert("RGB")))

    def test_feature_transparent_palette(self, read) -> None:
        image = photo().quantize(16)
        picture = read(saved(image, "PNG", transparency=3))
        assert np.array_equal(picture.alpha, np.where(np.asarray(image) == 3, 0, 255))
        assert picture.pixels.shape == (24, 40, 3)

    @pytest.mark.parametrize("form", ["PNG", "TIFF"])
    @pytest.mark.parametrize("samples", [COFFEE, RAMP])
    def test_feature_alpha_apart(self, read, form: str, samples: np.ndarray) -> None:
        picture = read(saved(photo(with_alpha(samples, RAMP)), form))
        assert np.array_equal(picture.alpha, RAMP)
        assert np.array_equal(picture.pixels, np.atleast_3d(samples))
        assert picture.pixels.flags.c_contiguous

    @pytest.mark.parametrize(("bits", "key"), [(2, 1), (4, 9), (8, 77)])
    def test_feature_one_level_marked_as_transparent(self, read, bits: int, key: int) -> None:
        levels = (np.arange(24 * 40).reshape(24, 40) % 2**bits).astype(np.uint8)
        chunk_data = struct.pack(">H", key)
        picture = read(handmade_png(levels, bits, 0, chunk(b"tRNS", chunk_data)))
        assert np.array_equal(picture.pixels[..., 0], levels * (255 // (2**bits - 1)))
        assert np.array_equal(picture.alpha, np.where(levels == key, 0, 255))

    def test_feature_cmyk_without_profile(self, read) -> None:
        image = photo().convert("CMYK")
        assert np.array_equal(read(saved(image, "TIFF")).pixels, np.asarray(image.convert("RGB")))

    def test_feature_cmyk_by_its_profile(self, read) -> None:
        image, profile = photo().convert("CMYK"), neutral_inks()
        picture = read(saved(image, "TIFF", icc_profile=profile))
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        expected = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert np.array_equal(picture.pixels, np.asarray(expected))
        assert not np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
        assert picture.icc_profile is None

    def test_feature_cmyk_with_a_profile_of_rgb(self, read) -> None:
        image = photo().convert("CMYK")
        picture = read(saved(image, "TIFF", icc_profile=SRGB))
        assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
        assert picture.icc_profile is None

    def test_feature_deep_cmyk(self, read) -> None:
        inks = np.asarray(photo().convert("CMYK"))
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, inks.astype(np.uint16) * 257, photometric="separated", metadata=None)
        assert np.array_equal(read(buffer.getvalue()).pixels, np.asarray(photo().convert("CMYK").convert("RGB")))


class TestSixteenBits:
    @pytest.mark.parametrize(
        ("samples", "colour_type"),
        [
            (DEEP[..., :1], 0),
            (DEEP, 2),
            (DEEP[..., :2], 4),
            (np.concatenate([DEEP, DEEP[..., :1]], axis=2), 6),
        ],
    )
    def test_feature_png(self, read, samples: np.ndarray, colour_type: int) -> None:
        picture = read(handmade_png(samples, 16, colour_type))
        assert picture.pixels.dtype == np.uint16
        channels = samples.shape[2]
        if channels in (2, 4):
            assert np.array_equal(picture.alpha, samples[..., -1])
            samples = samples[..., :-1]
        assert np.array_equal(picture.pixels, samples)

    @pytest.mark.parametrize(("samples", "colour_type"), [(DEEP[..., :1], 0), (DEEP, 2)])
    def test_feature_a_colour_marked_as_transparent(self, read, samples: np.ndarray, colour_type: int) -> None:
        key = samples[5, 7]
        picture = read(handmade_png(samples, 16, colour_type, chunk(b"tRNS", key.astype(">u2").tobytes())))
        assert np.array_equal(picture.pixels, samples)
        assert np.array_equal(picture.alpha, np.where((samples == key).all(axis=2), 0, 65535))

    @pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
    def test_feature_gray_tiff(self, read, photometric: str) -> None:
        stored = DEEP[..., 0] if photometric == "minisblack" else 65535 - DEEP[..., 0]
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, stored, photometric=photometric, metadata=None)
        assert np.array_equal(read(buffer.getvalue()).pixels, DEEP[..., :1])

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("extra", [None, "unassalpha", "unspecified"])
    def test_feature_rgb_tiff(self, read, byteorder: str, extra: str | None) -> None:
        stored = DEEP if extra is None else np.concatenate([DEEP, DEEP[..., :1]], axis=2)
        buffer = io.BytesIO()
        extrasamples = None if extra is None else [extra]
        tifffile.imwrite(
            buffer, stored, photometric="rgb", extrasamples=extrasamples, metadata=None, byteorder=byteorder
        )
        picture = read(buffer.getvalue())
        assert np.array_equal(picture.pixels, DEEP)
        assert (picture.alpha is not None) == (extra == "unassalpha")

    def test_feature_premultiplied_tiff(self, read) -> None:
        alpha = RAMP.astype(np.uint16) * 257
        stored = with_alpha((DEEP.astype(np.uint64) * alpha[..., None] // 65535).astype(np.uint16), alpha)
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, stored, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
        picture = read(buffer.getvalue())
        assert np.array_equal(picture.alpha, alpha)
        visible = alpha > 2000
        error = np.abs(picture.pixels.astype(int) - DEEP)[visible]
        assert (error <= 65535 // alpha[visible].astype(int)[:, None] + 1).all()  # a step of the stored product


class TestMetadata:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_feature_turned_and_reset(self, read, form: str, orientation: int) -> None:
        exif = PillowImage.Exif()
        exif[ORIENTATION], exif[0x010F] = orientation, "Maker"
        picture = read(saved(photo(), form, exif=exif))
        stored = np.asarray(PillowImage.open(io.BytesIO(saved(photo(), form))))
        assert np.array_equal(picture.pixels, TURNED[orientation](stored))
        kept = PillowImage.Exif()
        kept.load(picture.exif)
        assert kept.get(ORIENTATION, 1) == 1
        assert kept[0x010F] == "Maker"

    def test_feature_sixteen_bits_turned(self, read) -> None:
        exif = PillowImage.Exif()
        exif[ORIENTATION] = 6
        data = handmade_png(DEEP, 16, 2, chunk(b"eXIf", exif.tobytes()[6:]))
        assert np.array_equal(read(data).pixels, np.rot90(DEEP, -1))

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", AVIF])
    def test_feature_profile_and_xmp(self, read, form: str) -> None:
        xmp = b'<x:xmpmeta tiff:Orientation="6"> <tiff:Orientation>3</tiff:Orientation>'
        options = {"xmp": xmp} if form not in ("PNG", "TIFF") else {}
        picture = read(saved(photo(), form, icc_profile=SRGB, **options))
        assert picture.icc_profile == SRGB
        if options and int(PillowImage.__version__.partition(".")[0]) >= 11:
            assert picture.xmp == xmp.replace(b'"6"', b'"1"').replace(b">3<", b">1<")

    def test_feature_profile_of_gray(self, read) -> None:
        page = (Path(skimage.data.__file__).parent / "page.png").read_bytes()  # it has a dot gain of 20 %
        image = PillowImage.open(io.BytesIO(page))
        picture = read(page)
        assert np.array_equal(picture.pixels[..., 0], np.asarray(image))
        assert picture.icc_profile == image.info["icc_profile"]

    def test_feature_profile_of_other_colours_is_dropped(self, read) -> None:
        assert read(saved(photo(RAMP), "PNG", icc_profile=SRGB)).icc_profile is None
        assert read(saved(photo(), "PNG", icc_profile=SRGB[:30])).icc_profile is None


class TestRefused:
    def test_exception_too_many_pixels(self, read) -> None:
        with pytest.raises(PhotoError, match="40x24 pixels, above the limit"):
            read(saved(photo(), "PNG"), max_pixels=900)

    @pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
    def test_exception_animation(self, read, form: str) -> None:
        data = saved(photo(), form, save_all=True, append_images=[photo(COFFEE[::-1])])
        with pytest.raises(PhotoError, match="an animation"):
            read(data)

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_exception_cut_short(self, read, form: str) -> None:
        data = saved(photo(), form)
        with pytest.raises(PhotoError, match=r"cut short|damaged"):
            read(data[: len(data) * 2 // 3])

    def test_exception_not_an_image(self, read) -> None:
        with pytest.raises(PhotoError, match="not an image"):
            read(b"hello" * 20)


class TestHEIC:
    def test_feature_read_upright(self, read) -> None:
        heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
        exif = PillowImage.Exif()
        exif[ORIENTATION], exif[0x010F] = 6, "Maker"
        smooth = photo().resize((160, 96), PillowImage.Resampling.BICUBIC)
        buffer = io.BytesIO()
        heif.from_pillow(smooth).save(buffer, quality=95, exif=exif.tobytes(), icc_profile=SRGB)
        picture = read(buffer.getvalue())
        expected = np.rot90(np.asarray(smooth), -1)
        assert picture.pixels.shape == expected.shape
        assert np.abs(picture.pixels.astype(int) - expected).mean() < 4
        kept = PillowImage.Exif()
        kept.load(picture.exif)
        assert (kept.get(ORIENTATION, 1), kept[0x010F]) == (1, "Maker")

    def test_exception_without_the_extra(self, read, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
        with pytest.raises(PhotoError, match=r"pip install 'gramgan-plugin\[heic\]'"):
            read(b"\0\0\0\x18ftypheic" + bytes(100))
