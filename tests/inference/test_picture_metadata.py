import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from gramgan_plugin.data.photo_headers import Header, read_header
from gramgan_plugin.inference.picture_metadata import sized_exif, tiff_tags, upright_exif

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

WIDTH, HEIGHT, ORIENTATION = 0xA002, 0xA003, 0x0112


def exif_block(byte_order: str = "<") -> bytes:
    """An EXIF block with an orientation, sizes, a maker's note with an absolute offset, and a thumbnail."""
    entry = f"{byte_order}HHII"
    outer_end = 8 + 2 + 2 * 12 + 4
    inner_end = outer_end + 2 + 3 * 12 + 4
    outer = struct.pack(f"{byte_order}H", 2)
    outer += struct.pack(f"{byte_order}HHIHH", ORIENTATION, 3, 1, 6, 0)
    outer += struct.pack(entry, 0x8769, 4, 1, outer_end)
    outer += struct.pack(f"{byte_order}I", inner_end + 8)  # the directory of the thumbnail
    inner = struct.pack(f"{byte_order}H", 3)
    inner += struct.pack(entry, 0x927C, 7, 8, inner_end)
    inner += struct.pack(f"{byte_order}HHIHH", WIDTH, 3, 1, 40, 0)
    inner += struct.pack(entry, HEIGHT, 4, 1, 24)
    inner += bytes(4)
    thumbnail = struct.pack(f"{byte_order}H", 1) + struct.pack(f"{byte_order}HHIHH", 0x0103, 3, 1, 6, 0) + bytes(4)
    start = b"II*\0" if byte_order == "<" else b"MM\0*"
    return start + struct.pack(f"{byte_order}I", 8) + outer + inner + b"the note" + thumbnail


def header_with(exif: bytes) -> Header:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (4, 4)).save(buffer, "PNG", exif=exif)
    buffer.seek(0)
    return read_header(buffer, 100)._replace(exif=exif)


def parsed(exif: bytes) -> PillowImage.Exif:
    found = PillowImage.Exif()
    found.load(exif)
    return found


def test_orientation_is_reset_and_the_thumbnail_is_dropped() -> None:
    for byte_order in "<>":
        given_block = exif_block(byte_order)
        block = upright_exif(header_with(b"Exif\0\0" + given_block))
        assert block is not None
        found = parsed(block)
        assert found[ORIENTATION] == 1
        assert block[34:38] == bytes(4)  # no second directory, which would be the thumbnail's
        assert parsed(given_block)[ORIENTATION] == 6
        assert given_block[34:38] != bytes(4)
        assert len(block) == len(given_block)
        assert found.get_ifd(0x8769)[0x927C] == b"the note"  # at its old place


def test_sizes_of_the_result() -> None:
    for byte_order in "<>":
        found = parsed(sized_exif(exif_block(byte_order), 70_000, 96)).get_ifd(0x8769)
        assert (found[WIDTH], found[HEIGHT]) == (70_000, 96)


def test_a_damaged_block_is_dropped() -> None:
    for block in (b"", b"Exif\0\0", b"XX*\0\x08\0\0\0", exif_block()[:20], b"II*\0\xff\xff\xff\xff"):
        assert not upright_exif(header_with(block or b"Exif\0\0"))


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*"]))
def test_smoke_any_bytes(data: bytes, start: bytes) -> None:
    block = start + data
    header = Header(PillowImage.new("RGB", (4, 4)), "PNG", 8, 1, exif=block)  # type: ignore[arg-type]
    upright = upright_exif(header)
    assert upright is None or len(upright) == len(block)
    sized_exif(block, 5, 7)
    tiff_tags(block)


def test_only_tags_about_the_photo_go_into_a_tiff() -> None:
    exif = PillowImage.Exif()
    exif[0x010F], exif[0x0111], exif[324] = "Maker", 12345, 999  # the maker; places of strips and tiles
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00", 0xA005: 4}
    exif[0x8825] = {1: "N"}
    tags = tiff_tags(exif.tobytes())
    assert set(tags) == {0x010F, 0x8769, 0x8825}
    assert set(tags[0x8769]) == {0x9003}
    assert tiff_tags(None) == {}
    assert tiff_tags(b"nonsense") == {}
