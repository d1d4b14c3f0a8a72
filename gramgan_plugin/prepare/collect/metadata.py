"""Remove EXIF, places, names and comments from a photo's file without changing its pixels."""

from collections.abc import Iterator

# JPEG segments without which pixels decode the same; kept are JFIF, tables, frames, scans and Adobe's colour transform.
_JPEG_DROPPED = frozenset((0xFE, *range(0xE1, 0xEE), 0xEF))  # comments; APP1 (EXIF, XMP) to APP13 (IPTC); APP15
_LONE = frozenset((0x01, *range(0xD0, 0xD8)))
_PNG_KEPT = frozenset((b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT"))


def without_metadata(data: bytes, form: str) -> bytes | None:
    """Return a JPEG or PNG file with only what decoding needs.

    Profiles are removed, too: this is used only for photos whose stored pixels are sRGB.

    Args:
        data: a complete file.
        form: "JPEG", "PNG", ...

    Returns:
        The file without data after its end; None for formats that have to be re-encoded.
    """
    if form == "JPEG":
        return b"".join(_jpeg_parts(data))
    if form == "PNG":
        return b"".join(_png_parts(data))
    return data if form in ("BMP", "PPM") else None  # these contain pixels only


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    """Yield the start, the kept segments, the scans and the end marker; a second picture after it is left out."""
    yield data[:2]
    position = 2
    while position + 2 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
        elif marker == 0xD9:
            yield data[position : position + 2]
            return
        elif marker in _LONE:
            position += 2
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            if marker == 0xDA:
                end = _scan_end(data, end)
            if marker not in _JPEG_DROPPED:
                yield data[position:end]
            position = end


def _scan_end(data: bytes, position: int) -> int:
    """Return the position of the next marker; in a scan 0xFF is followed by 0 or a restart marker."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        if data[position + 1] and data[position + 1] not in _LONE:
            return position
        position += 2


def _png_parts(data: bytes) -> Iterator[bytes]:
    yield data[:8]
    position = 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind[:1].isupper() or kind in _PNG_KEPT:
            yield data[position:end]
        if kind == b"IEND":
            return
        position = end
