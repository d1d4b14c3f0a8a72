import io
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image as PillowImage

from gramgan_plugin.data.images import decode, encode_png, list_images, mod_crop, read_image


class TestDecode:
    def test_feature_bgr(self) -> None:
        rgb = skimage.data.coffee()[:20, :30]
        buffer = io.BytesIO()
        PillowImage.fromarray(rgb).save(buffer, "png")
        decoded = decode(buffer.getvalue())
        assert decoded is not None
        assert np.array_equal(decoded[..., ::-1], rgb)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1"])
    def test_cardinality_three_channels_of_8_bits(self, mode: str) -> None:
        source = PillowImage.fromarray(skimage.data.coffee()[:8, :9])
        deep = PillowImage.fromarray(np.full((8, 9), 40000, np.uint16))
        source = deep if mode == "I;16" else source.convert(mode)
        buffer = io.BytesIO()
        source.save(buffer, "png")
        decoded = decode(buffer.getvalue())
        assert decoded is not None
        assert decoded.shape == (8, 9, 3)
        assert decoded.dtype == np.uint8

    def test_feature_exif_orientation(self) -> None:
        source = PillowImage.fromarray(skimage.data.coffee()[:24, :40])
        exif = source.getexif()
        exif[0x112] = 6  # turn clockwise to show
        buffer = io.BytesIO()
        source.save(buffer, "jpeg", exif=exif, quality=95)
        decoded = decode(buffer.getvalue())
        assert decoded is not None
        expected = np.rot90(np.asarray(source), -1)[..., ::-1].astype(float)
        assert decoded.shape == expected.shape
        assert np.abs(decoded - expected).mean() < 8

    @pytest.mark.parametrize("data", [b"", b"no image", encode_png(np.zeros((9, 9, 3), np.uint8), 3)[:40]])
    def test_exception(self, data: bytes) -> None:
        assert decode(data) is None

    @pytest.mark.parametrize("file", ["coffee.png", "rocket.jpg"])
    def test_exception_truncated(self, file: str) -> None:
        data = (Path(skimage.data.__file__).parent / file).read_bytes()
        assert decode(data) is not None
        assert decode(data[: len(data) // 2]) is None


class TestFiles:
    def test_feature_unicode_name(self, tmp_path: Path) -> None:
        image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
        path = tmp_path / "фото 写真.png"
        path.write_bytes(encode_png(image, 9))
        assert np.array_equal(read_image(path), image)

    def test_feature_list(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / ".hidden").mkdir()
        for name in ("b.PNG", "a.jpg", "notes.txt", ".a.png", "sub/c.png", ".hidden/d.png"):
            (tmp_path / name).touch()
        assert list_images(tmp_path) == ["a.jpg", "b.PNG"]
        assert list_images(tmp_path, recursive=True) == ["a.jpg", "b.PNG", "sub/c.png"]

    def test_cardinality_mod_crop(self) -> None:
        assert mod_crop(np.zeros((11, 8, 3), np.uint8), 4).shape == (8, 8, 3)
