"""Colour profiles: expected values come from LittleCMS or arithmetic in the test."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from gramgan_plugin.data.photos import decode_photo, read_photo
from tests.data.made_photos import (
    COFFEE,
    DEEP,
    INKS,
    WHEEL,
    chunk,
    display_p3,
    handmade_png,
    lightness_to_srgb,
    near_srgb,
    neutral_inks,
    opencv,
    p3_to_srgb,
    photo,
    rgb,
    saved,
)

# pytest undoes the filter that the module sets; that nothing comes to stderr is tested in a process of its own.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


class TestProfiles:
    @pytest.mark.parametrize("form", ["png", "tiff", "webp"])
    def test_feature_display_p3(self, form: str) -> None:
        options = {"lossless": True} if form == "webp" else {}
        converted = rgb(saved(photo(), form, icc_profile=display_p3(), **options))
        expected = p3_to_srgb(COFFEE)
        assert np.abs(converted - expected).max() < 2.5
        assert np.abs(converted - expected).mean() < 0.4
        assert np.abs(converted.astype(int) - COFFEE).max() > 8  # it makes a difference

    def test_feature_display_p3_16_bits(self) -> None:
        data = handmade_png(DEEP, 16, 2, chunk(b"iCCP", b"p3\0\0" + zlib.compress(display_p3())))
        assert np.abs(rgb(data) - p3_to_srgb(DEEP / 257)).max() < 3

    def test_feature_turned_and_converted(self) -> None:
        exif = PillowImage.Exif()
        exif[0x112] = 6
        data = saved(photo(), "png", exif=exif, icc_profile=display_p3())
        assert np.abs(rgb(data) - p3_to_srgb(np.rot90(COFFEE, -1))).max() < 2.5

    def test_feature_real_adobe_rgb(self) -> None:
        """scikit-image's rocket is a JPEG in Adobe RGB."""
        path = WHEEL / "rocket.jpg"
        source = PillowImage.open(path)
        profile = ImageCms.ImageCmsProfile(io.BytesIO(source.info["icc_profile"]))
        expected = ImageCms.profileToProfile(source, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert np.abs(read_photo(path)[..., ::-1].astype(int) - np.asarray(expected)).max() <= 2
        assert np.abs(read_photo(path).astype(int) - opencv(path.read_bytes())).max() > 10

    @pytest.mark.parametrize("file", ["rocket.jpg", "page.png", "color.png"])
    def test_feature_colours_left_as_they_are(self, file: str) -> None:
        """As BasicSR reads benchmark sets."""
        data = (WHEEL / file).read_bytes()
        expected = np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode_photo(data, manage_colours=False)[..., ::-1], expected)

    def test_feature_real_gray_profile(self) -> None:
        """scikit-image's page has a dot gain of 20 %: lighter than the same numbers in sRGB."""
        converted = read_photo(WHEEL / "page.png")
        stored = opencv((WHEEL / "page.png").read_bytes())
        assert (converted[..., 0] == converted[..., 2]).all()
        assert np.abs(converted.astype(int) - stored).max() > 5

    def test_feature_cmyk_by_profile(self) -> None:
        data = saved(photo().convert("CMYK"), "jpeg", quality=95, subsampling=0, icc_profile=neutral_inks())
        inks = np.asarray(PillowImage.open(io.BytesIO(data))).astype(float)  # (48, 80, 4)
        expected = lightness_to_srgb((255 - inks @ INKS / 255) / 2.55)
        assert np.abs(rgb(data) - expected[..., None]).max() < 2.5
        assert np.abs(rgb(data) - COFFEE.astype(float)).mean() > 20

    @pytest.mark.parametrize("profile", [b"no profile at all", display_p3()[:200], bytes(300)])
    def test_feature_broken_profile_is_ignored(self, profile: bytes) -> None:
        assert np.array_equal(rgb(saved(photo(), "png", icc_profile=profile)), COFFEE)

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_feature_profile_of_other_colours_is_ignored(self, mode: str) -> None:
        plain, tagged = (
            saved(photo().convert(mode), "jpeg", **options) for options in ({}, {"icc_profile": display_p3()})
        )
        assert np.array_equal(rgb(plain), rgb(tagged))

    @pytest.mark.parametrize("form", ["png", "jpeg"])
    def test_feature_srgb_moves_nothing(self, form: str) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert np.array_equal(rgb(saved(photo(), form)), rgb(saved(photo(), form, icc_profile=profile)))

    def test_feature_nearly_srgb_moves_nothing(self) -> None:
        """Cameras round sRGB's numbers in many ways; a level up or down is not worth touching pixels for."""
        near = near_srgb()
        colours = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
        source = PillowImage.fromarray(colours)
        converted = ImageCms.profileToProfile(
            source, ImageCms.ImageCmsProfile(io.BytesIO(near)), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert np.abs(np.asarray(converted).astype(int) - colours).max() == 1
        assert np.array_equal(rgb(saved(source, "png", icc_profile=near)), colours)
