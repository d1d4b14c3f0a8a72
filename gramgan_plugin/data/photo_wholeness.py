"""Check files before OpenCV decodes them: it fills missing parts with gray and writes its messages to stderr."""

import struct
import zlib
from typing import Literal

from gramgan_plugin.data.photo_headers import PhotoError


def check_jpeg_whole(data: bytes) -> None:
    """Refuse a truncated JPEG: OpenCV and others silently fill the rest with gray.

    Within scans 0xFF is followed by 0 or a restart marker, so an end marker found there is real; a thumbnail's end
    marker comes before the scans.

    Raises:
        PhotoError: if no end marker follows the start of the first scan.
    """
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise PhotoError("damaged: a JPEG marker is missing")
        marker = data[position + 1]
        if marker == 0xDA:  # start of scan
            if data.find(b"\xff\xd9", position) < 0:
                break
            return
        lone = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8  # fill bytes, markers without a segment
        position += (1 if marker == 0xFF else 2) if lone else 2 + int.from_bytes(data[position + 2 : position + 4])
    raise PhotoError("cut short")


def checked_png(data: bytes) -> bytes:
    """Return a PNG without the chunks that pixels do not need: libpng writes messages about them to stderr.

    A chunk with EXIF's orientation is kept if its checksum is correct.

    Raises:
        PhotoError: if the checksum of a needed chunk is wrong, or the file is truncated.
    """
    view, position, kept = memoryview(data), 8, [memoryview(data)[:8]]
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(view[position : position + 4])
        kind = view[position + 4 : position + 8]
        needed = kind[0] < 0x60 or kind == b"tRNS"  # a capital letter: critical
        if needed or kind == b"eXIf":
            if zlib.crc32(view[position + 4 : end]) == int.from_bytes(view[end : end + 4]):
                kept.append(view[position : end + 4])
            elif needed:
                raise PhotoError("damaged: a checksum of the PNG is wrong")
        position = end + 4
        if kind == b"IEND":
            break
    else:
        raise PhotoError("cut short")
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


# TIFF tags that pixels need: sizes, depth, compression, strips and tiles, orientation, predictor, alpha, ...
_TIFF_TAGS = frozenset((*range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 317, *range(320, 326), 338, 339, 347))


def plain_tiff(data: bytes) -> bytes:
    """Return a TIFF with only the tags that pixels need in its first directory: OpenCV reports others on stderr.

    Args:
        data: a TIFF. A BigTIFF is returned as it is.
    """
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return data
    mark: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    (begin,) = struct.unpack_from(f"{mark}I", data, 4)
    (count,) = struct.unpack_from(f"{mark}H", data, begin)
    entries = {}
    for place in range(begin + 2, begin + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(f"{mark}H", data, place)
        if tag in _TIFF_TAGS:
            entries[tag] = data[place : place + 12]
    kept = [entries[tag] for tag in sorted(entries)]
    padding = len(data) % 2  # a directory starts at an even offset
    directory = struct.pack(f"{mark}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:4] + struct.pack(f"{mark}I", len(data) + padding) + data[8:] + bytes(padding) + directory
