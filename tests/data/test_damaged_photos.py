"""Files that are damaged, or made to do harm."""

import contextlib
import errno
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from gramgan_plugin.data.photo_headers import read_header
from gramgan_plugin.data.photos import MAX_PIXELS, PhotoError, decode_photo, photo_info, read_photo
from gramgan_plugin.prepare.collect.examine import examine
from tests.data import damaged_photos
from tests.data.made_photos import COFFEE, DEEP, chunk, handmade_png, opencv, photo, rgb, saved

# pytest undoes the filter that the module sets; that nothing comes to stderr is tested in a process of its own.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


class TestDamage:
    @pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "bmp", "gif", "ppm"])
    @pytest.mark.parametrize("share", [0.4, 0.8, 0.99])
    def test_exception_cut_short(self, form: str, share: float) -> None:
        source = photo().quantize(64) if form == "gif" else photo()
        data = saved(source, form)
        with pytest.raises(PhotoError) as raised:
            decode_photo(data[: int(len(data) * share)])
        assert str(raised.value) == "cut short" or str(raised.value).startswith("damaged")
        if form in ("jpeg", "png", "webp", "tiff"):
            assert str(raised.value) == "cut short"

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_exception_jpeg_with_thumbnail(self, share: float) -> None:
        """The thumbnail's end mark stands in the rest that is left."""
        exif = PillowImage.Exif()
        exif[0x927C] = saved(photo().resize((16, 10)), "jpeg")
        data = saved(photo(), "jpeg", quality=95, exif=exif)
        assert decode_photo(data).shape == (48, 80, 3)
        begin = data.rindex(b"\xff\xda")
        assert b"\xff\xd9" in data[:begin]
        with pytest.raises(PhotoError, match="cut short"):
            decode_photo(data[: begin + int((len(data) - begin) * share)])

    def test_exception_jpeg_filled_up_with_zeros(self) -> None:
        """As a download that got its space before its bytes."""
        data = saved(photo(), "jpeg", quality=95)
        with pytest.raises(PhotoError, match="cut short"):
            decode_photo(data[: len(data) // 2] + bytes(len(data) // 2))

    @pytest.mark.parametrize("compression", [None, "tiff_lzw"])
    def test_exception_16_bit_tiff_cut_short(self, compression: str | None) -> None:
        """Its directory stands before the pixels, so that the header alone shows it."""
        gray = saved(PillowImage.fromarray(DEEP[..., 0]), "tiff", compression=compression)
        assert rgb(gray).shape == (48, 80, 3)
        for look in (photo_info, decode_photo):
            with pytest.raises(PhotoError, match="cut short"):
                look(gray[:-500])

    def test_feature_bytes_behind_the_end(self) -> None:
        data = saved(photo(), "jpeg", quality=95)
        assert np.array_equal(decode_photo(data + b"film of a moving photo" * 9), opencv(data))

    def test_exception_png_with_flipped_bit(self) -> None:
        data = bytearray(saved(photo(), "png"))
        data[len(data) // 2] ^= 4
        with pytest.raises(PhotoError, match="checksum"):
            decode_photo(bytes(data))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "an empty file"),
            (b"a note, not a photo", "not an image"),
            (b"\x89PNG\r\n\x1a\n", ""),
            (b"\xff\xd8\xff", ""),
            (b"RIFF\x10\0\0\0WEBPnonsense", ""),
            (b"II*\0\x08\0\0\0\xff\xff", ""),
            (b"BM", ""),
            (b"GIF89a", ""),
            (b"P6\n3", ""),
            (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
            (b"\0\0\0\x18ftypavif" + bytes(20), ""),
            (b"%PDF-1.7 and so on", "not an image"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        ],
    )
    def test_exception_no_images(self, data: bytes, reason: str, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        path.write_bytes(data)
        for look in (photo_info, read_photo):
            with pytest.raises(PhotoError) as raised:
                look(path)
            assert str(raised.value).startswith(reason)
            assert "\n" not in str(raised.value)

    def test_exception_flipped_bytes_everywhere(self) -> None:
        """Whatever is damaged, there is a photo of its size or a PhotoError, nothing else."""
        random = np.random.default_rng(0)
        for form in ("jpeg", "png", "webp", "tiff", "bmp", "gif"):
            whole = saved(photo().quantize(64) if form == "gif" else photo(), form)
            for _ in range(40):
                data = bytearray(whole)
                for place in random.integers(0, min(len(data), 400), 3):
                    data[place] = random.integers(256)
                with contextlib.suppress(PhotoError):
                    assert decode_photo(bytes(data), max_pixels=10**6).shape[2] == 3


class TestHostile:
    """Whatever a parser raises on a file becomes a PhotoError: a job over many files must continue."""

    @pytest.mark.parametrize("name", sorted(damaged_photos.handmade()))
    def test_exception_handmade(self, name: str) -> None:
        data = damaged_photos.handmade()[name]
        with pytest.raises(PhotoError) as raised:
            decode_photo(data)
        assert str(raised.value) == "cut short" or str(raised.value).startswith("damaged: ")
        with contextlib.suppress(PhotoError):  # the damage may not show in the header
            assert photo_info(data)[:2] == (80, 48)
        assert examine(data)[0].unreadable == str(raised.value)

    def test_exception_mutated(self) -> None:
        reasons = []
        for _, data in damaged_photos.mutated(400, seed=5):
            for look in (photo_info, decode_photo, examine):
                try:
                    look(data)
                except PhotoError as error:
                    reasons.append(str(error))
        assert 200 < len(reasons) < 700
        assert not [reason for reason in reasons if "\n" in reason or len(reason) > 300]

    def test_exception_a_long_name_in_the_message_is_cut(self) -> None:
        data = b"P6 " + b"9" * 5000 + b" 48 255\n" + COFFEE.tobytes()
        with pytest.raises(PhotoError) as raised:
            photo_info(data)
        assert len(str(raised.value)) < 300

    def test_exception_disk(self, tmp_path: Path) -> None:
        """One bad sector is the fault of the file that lies on it; a lack of memory is nobody's."""

        class Failing(io.BytesIO):
            error: Exception = OSError(errno.EIO, "Input/output error")

            def read(self, size: int | None = -1) -> bytes:
                raise self.error

        file = Failing(saved(photo(), "png"))
        with pytest.raises(PhotoError, match=r"^cannot be read: Input/output error$"):
            read_header(file, MAX_PIXELS)
        file.error = MemoryError()
        with pytest.raises(MemoryError):
            read_header(file, MAX_PIXELS)

    @pytest.mark.parametrize("white", [False, True])
    def test_exception_transparent_level_of_1_bit(self, white: bool) -> None:
        samples = (COFFEE[..., 0] > 127).astype(np.uint8)
        with pytest.raises(PhotoError, match="transparent"):
            decode_photo(handmade_png(samples, 1, 0, chunk(b"tRNS", bytes((0, white)))))
        whole = np.full_like(samples, not white)
        assert (rgb(handmade_png(whole, 1, 0, chunk(b"tRNS", bytes((0, white))))) == 255 * (not white)).all()
