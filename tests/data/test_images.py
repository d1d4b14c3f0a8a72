import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
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


@pytest.fixture(scope="module")
def png() -> bytes:
    """A whole file."""
    buffer = io.BytesIO()
    PillowImage.fromarray(skimage.data.coffee()[:60, :90]).save(buffer, "png")
    return buffer.getvalue()


class TestSilence:
    """libpng writes to the process's stderr what it finds, and names no file."""

    def chunk(self, kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def complaints(self, capfd: pytest.CaptureFixture[str], data: bytes) -> str:
        """What OpenCV alone writes."""
        capfd.readouterr()
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return capfd.readouterr().err

    @pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
    def test_a_byte_that_changed(self, png, capfd, place):
        damaged = bytearray(png)
        damaged[int(place * len(png))] ^= 4
        assert "libpng" in self.complaints(capfd, bytes(damaged))
        assert decode(bytes(damaged)) is None
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_one_cut_short(self, png, capfd, share):
        cut = png[: int(share * len(png))]
        assert "PNG" in self.complaints(capfd, cut)
        assert decode(cut) is None
        assert capfd.readouterr() == ("", "")

    def test_a_profile_that_is_none(self, png, capfd):
        with_profile = png[:33] + self.chunk(b"iCCP", b"icc\0\0junk") + png[33:]
        assert "iCCP" in self.complaints(capfd, with_profile)
        assert np.array_equal(decode(with_profile), decode(png))
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("sound", [True, False])
    def test_exif_orientation(self, png, capfd, sound):
        exif = PillowImage.Exif()
        exif[0x112] = 6
        chunk = self.chunk(b"eXIf", exif.tobytes()[6:])
        turned = png[:33] + (chunk if sound else chunk[:-1] + b"\0") + png[33:]
        decoded, plain = decode(turned), decode(png)
        assert np.array_equal(decoded, np.rot90(plain, -1) if sound else plain)
        assert capfd.readouterr() == ("", "")

    @given(st.data())
    @settings(max_examples=60, deadline=None)
    def test_as_opencv_decodes(self, png, data):
        """Whatever is whole has OpenCV's own pixels; what is not is None."""
        kinds = st.sampled_from([b"tEXt", b"gAMA", b"pHYs", b"zTXt", b"abCd"])
        chunks = data.draw(st.lists(st.tuples(kinds, st.binary(max_size=20)), max_size=3))
        extra = b"".join(self.chunk(*one) for one in chunks)
        assert np.array_equal(decode(png[:33] + extra + png[33:]), decode(png))
