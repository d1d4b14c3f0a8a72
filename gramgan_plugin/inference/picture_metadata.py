"""Take profiles, EXIF and XMP out of pictures, and change in them what upscaling changes: orientation and size."""

import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from PIL import Image as PillowImage
from PIL.ImageFile import ImageFile

from gramgan_plugin.data.photo_headers import ORIENTATION, Header

EXIF_START = b"Exif\0\0"  # precedes the block in JPEG
XMP_IN_PNG = "XML:com.adobe.xmp"
XMP_IN_TIFF = 700
_EXIF_DIRECTORY, _GPS_DIRECTORY, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_SIZES = ((0x0100, 0x0101), (0xA002, 0xA003))  # width and height, of the file and of the photo
# The tags of a TIFF that describe the photo; all others describe the file's structure.
_OF_THE_PHOTO = (270, 271, 272, 285, 305, 306, 315, 316, 333, 33432, _EXIF_DIRECTORY, _GPS_DIRECTORY)
_TURNED_XMP = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)[2-8]""")


def fitting_profile(header: Header, gray: bool) -> bytes | None:
    """Return a file's ICC profile, or None if it is missing, damaged, or of another kind of colours.

    Args:
        header: of a file that is not CMYK.
        gray: whether the pixels have one channel.
    """
    profile = header.image.info.get("icc_profile")
    kind = b"GRAY" if gray else b"RGB "
    return profile if profile and profile[16:20] == kind and profile[36:40] == b"acsp" else None


def upright_exif(header: Header) -> bytes | None:
    """Return a file's EXIF block with orientation 1, without a thumbnail; None if it has none, or a damaged one."""
    exif = header.exif
    if header.form == "TIFF":
        tags = _as_exif(header.image.getexif())
        exif = tags.tobytes() if tags else None
    return _patched(exif, {ORIENTATION: 1}) if exif else None


def sized_exif(exif: bytes, width: int, height: int) -> bytes:
    """Return an EXIF block of :func:`upright_exif` with another size of the picture, in pixels."""
    return (
        _patched(exif, {tag: value for tags in _SIZES for tag, value in zip(tags, (width, height), strict=True)}) or b""
    )


def upright_xmp(image: ImageFile) -> bytes | None:
    """Return a file's XMP packet with orientation 1, or None."""
    xmp = image.info.get("xmp") or image.info.get(XMP_IN_PNG)
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "replace")
    return _TURNED_XMP.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) else None


def tiff_tags(exif: bytes | None) -> dict[int, Any]:
    """Return the values of an EXIF block as tags of a TIFF; none if Pillow cannot write them."""
    try:
        parsed = PillowImage.Exif()
        parsed.load(exif or b"")
        _as_exif(parsed).tobytes()
        return dict(_as_exif(parsed))
    except Exception:  # what parsers raise for damaged values cannot be listed
        return {}


def _as_exif(found: PillowImage.Exif) -> PillowImage.Exif:
    """Return a copy with only the tags that describe the photo."""
    exif = PillowImage.Exif()
    for tag in _OF_THE_PHOTO:
        value = found.get(tag)
        if tag in (_EXIF_DIRECTORY, _GPS_DIRECTORY):
            value = {inner: value for inner, value in found.get_ifd(tag).items() if inner != _INTEROPERABILITY}
        if value:
            exif[tag] = value
    return exif


def _patched(exif: bytes, values: Mapping[int, int]) -> bytes | None:
    """Return an EXIF block with other values of tags that it has; None if it is damaged.

    Values are overwritten in place: camera makers' notes hold offsets that would be wrong in a block made anew.
    """
    data = bytearray(exif.removeprefix(EXIF_START))
    mark = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
    if mark is None:
        return None
    try:
        (begin,) = struct.unpack_from(f"{mark}I", data, 4)
        end, inner = _patch_directory(data, mark, begin, values)
        if inner:
            _patch_directory(data, mark, inner, values)
    except struct.error:
        return None
    with suppress(struct.error):  # some cameras end the block here
        struct.pack_into(f"{mark}I", data, end, 0)  # no second directory: its thumbnail is of the picture before
    return bytes(data)


def _patch_directory(data: bytearray, mark: str, begin: int, values: Mapping[int, int]) -> tuple[int, int]:
    """Patch one directory; return where it ends, and the offset of the EXIF directory or 0."""
    (count,) = struct.unpack_from(f"{mark}H", data, begin)
    inner = 0
    for place in range(begin + 2, begin + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from(f"{mark}HHII", data, place)
        if tag == _EXIF_DIRECTORY:
            inner = value
        if tag in values:  # as a LONG, which also holds sizes above 65535
            struct.pack_into(f"{mark}HHII", data, place, tag, 4, 1, values[tag])
    return begin + 2 + 12 * count, inner
