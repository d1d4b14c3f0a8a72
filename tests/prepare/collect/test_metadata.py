import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from gramgan_plugin.prepare.collect.metadata import without_metadata

SECRET = b"47 degrees north"


def exif() -> bytes:
    made = PillowImage.Exif()
    made[0x010E] = SECRET.decode()
    made.get_ifd(0x8825)[1] = "N"
    return made.tobytes()


def jpeg(image: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = PillowImage.fromarray(image[..., ::-1])
    picture.save(buffer, "JPEG", exif=exif(), comment=SECRET, xmp=SECRET, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


class TestWithoutMetadata:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 30}])
    def test_feature_jpeg(self, photos: dict[str, np.ndarray], options: dict[str, object]) -> None:
        data = jpeg(photos["chelsea"], **options)
        assert data.count(SECRET) == 3
        stripped = without_metadata(data + b"\xff\xd8 a second picture, " + SECRET, "JPEG")
        assert stripped is not None
        assert SECRET not in stripped
        assert b"Exif" not in stripped
        assert not PillowImage.open(io.BytesIO(stripped)).getexif()
        np.testing.assert_array_equal(pixels(stripped), pixels(data))
        assert len(data) - len(stripped) < 500  # only that

    def test_feature_png(self, photos: dict[str, np.ndarray]) -> None:
        buffer, text = io.BytesIO(), PngInfo()
        text.add_text("place", SECRET.decode())
        text.add_itxt("place", SECRET.decode())
        PillowImage.fromarray(photos["chelsea"][..., ::-1]).save(buffer, "PNG", exif=exif(), pnginfo=text)
        data = buffer.getvalue()
        stripped = without_metadata(data + b"\0\0\0\x10MORE" + SECRET + bytes(4), "PNG")
        assert stripped is not None
        assert SECRET not in stripped
        assert b"eXIf" not in stripped
        np.testing.assert_array_equal(pixels(stripped), photos["chelsea"])

    def test_feature_nothing_to_take_out(self, photos: dict[str, np.ndarray], encode: Callable[..., bytes]) -> None:
        for suffix, form in ((".jpg", "JPEG"), (".png", "PNG"), (".bmp", "BMP")):
            data = encode(photos["chelsea"], suffix)
            assert without_metadata(data, form) == data

    def test_feature_forms_to_write_anew(self) -> None:
        assert without_metadata(b"", "WEBP") is None
        assert without_metadata(b"", "TIFF") is None
