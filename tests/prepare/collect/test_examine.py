import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageCms

from gramgan_plugin.data.photos import decode_photo
from gramgan_plugin.prepare.collect.examine import examine
from gramgan_plugin.prepare.collect.keeping import final_content

ORIENTATION = 0x0112


def saved(image: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(image[..., ::-1] if image.ndim == 3 else image).save(buffer, form, **options)
    return buffer.getvalue()


def turned(image: np.ndarray, orientation: int) -> bytes:
    exif = PillowImage.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010E] = "a secret"
    return saved(image, "JPEG", exif=exif.tobytes())


class TestExamine:
    def test_smoke(self, photos: dict[str, np.ndarray], encode: Callable[..., bytes]) -> None:
        data = encode(photos["coffee"], quality=88)
        measured, thumbnail = examine(data)
        assert (measured.width, measured.height, measured.format) == (600, 400, "JPEG")
        assert measured.jpeg_quality == 88
        assert measured.rewrite is None
        assert measured.unreadable is None
        assert thumbnail is not None
        small = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_COLOR)
        assert small.shape == (107, 160, 3)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [(b"", "empty"), (b"<html>404</html>", "not an image"), (b"\xff\xd8\xff\xe0", "cut short|damaged")],
    )
    def test_feature_no_photo(self, data: bytes, reason: str) -> None:
        measured, thumbnail = examine(data)
        assert any(part in (measured.unreadable or "") for part in reason.split("|"))
        assert thumbnail is None

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
    def test_feature_ordinary_files_are_copied(
        self, photos: dict[str, np.ndarray], encode: Callable[..., bytes], suffix: str
    ) -> None:
        for image in (photos["chelsea"], cv2.cvtColor(photos["chelsea"], cv2.COLOR_BGR2GRAY)):
            data = encode(image, suffix)
            measured, _ = examine(data)
            assert measured.rewrite is None
            assert final_content(data, measured, strip=False) == data

    def test_feature_orientation(self, photos: dict[str, np.ndarray]) -> None:
        data = turned(photos["chelsea"], 6)
        measured, _ = examine(data)
        assert measured.rewrite == "EXIF orientation"
        assert (measured.width, measured.height) == (300, 451)
        content = final_content(data, measured, strip=False)
        upright = np.rot90(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_IGNORE_ORIENTATION | 1), -1)
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(content, np.uint8), 1), upright)
        assert b"secret" not in content
        assert examine(turned(photos["chelsea"], 1))[0].rewrite is None

    def test_feature_profile(self, photos: dict[str, np.ndarray]) -> None:
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert examine(saved(photos["chelsea"], "PNG", icc_profile=srgb))[0].rewrite is None
        lab_like = _gamma_profile(srgb)
        data = saved(photos["chelsea"], "PNG", icc_profile=lab_like)
        measured, _ = examine(data)
        assert measured.rewrite == "colour profile"
        content = final_content(data, measured, strip=False)
        written = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(written, decode_photo(data))
        assert np.abs(written.astype(int) - photos["chelsea"]).max() > 20
        assert b"iCCP" not in content

    def test_feature_sixteen_bits(self, photos: dict[str, np.ndarray], encode: Callable[..., bytes]) -> None:
        deep = photos["chelsea"].astype(np.uint16) * 257 + 100
        measured, _ = examine(encode(deep, ".png"))
        assert measured.rewrite == "16 bits"

    def test_feature_stripped_keeps_pixels(self, photos: dict[str, np.ndarray]) -> None:
        for form in ("JPEG", "WEBP"):
            exif = PillowImage.Exif()
            exif[0x010E] = "a secret"
            data = saved(photos["chelsea"], form, exif=exif.tobytes())
            measured, _ = examine(data)
            content = final_content(data, measured, strip=True)
            assert b"secret" in data
            assert b"secret" not in content
            np.testing.assert_array_equal(decode_photo(content), decode_photo(data))


def _gamma_profile(srgb: bytes) -> bytes:
    """sRGB's primaries with a plain gamma of 1.0: its curves, shared by the three channels, replaced."""
    count = int.from_bytes(srgb[128:132], "big")
    tags = [srgb[132 + 12 * k : 144 + 12 * k] for k in range(count)]
    data = bytearray(srgb)
    for tag in tags:
        if tag[:4] in (b"rTRC", b"gTRC", b"bTRC"):
            place = int.from_bytes(tag[4:8], "big")
            data[place : place + 12] = b"curv" + bytes(4) + bytes(4)  # no points: linear
    for k, tag in enumerate(tags):
        if tag[:4] in (b"rTRC", b"gTRC", b"bTRC"):
            data[132 + 12 * k + 8 : 144 + 12 * k] = (12).to_bytes(4, "big")
    return bytes(data)
