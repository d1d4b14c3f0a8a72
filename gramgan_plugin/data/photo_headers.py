"""Read the header of an image file: form, size and depth. No pixel is decoded, and Pillow's limits stay active."""

import errno
import importlib
import logging
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from PIL import Image as PillowImage
from PIL.ImageFile import ImageFile

from gramgan_plugin.utils.text import first_line, printable

# Pillow warns about a damaged EXIF block; the photo is read anyway.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its messages about damage name no file

ORIENTATION = 0x0112  # the EXIF tag
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION, SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF
TIFF_EXTENTS = ((273, 279), (324, 325))  # offsets and lengths of strips and tiles
LONGEST_REASON = 200  # characters of a parser's message, which may quote the file
_GRAY_OR_COLOURS = ("1", "L", "I", "I;16", "RGB")  # modes in which PNG can mark one colour as transparent
TIFF_KINDS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}

# First bytes -> Pillow's module and class. Forms that are missing here are not accepted as photos.
_FORMS = (
    (b"\xff\xd8\xff", "JpegImagePlugin", "JpegImageFile"),
    (b"\x89PNG\r\n\x1a\n", "PngImagePlugin", "PngImageFile"),
    (b"II*\0", "TiffImagePlugin", "TiffImageFile"),
    (b"MM\0*", "TiffImagePlugin", "TiffImageFile"),
    (b"II+\0", "TiffImagePlugin", "TiffImageFile"),
    (b"MM\0+", "TiffImagePlugin", "TiffImageFile"),
    (b"BM", "BmpImagePlugin", "BmpImageFile"),
    (b"GIF87a", "GifImagePlugin", "GifImageFile"),
    (b"GIF89a", "GifImagePlugin", "GifImageFile"),
    *((b"P%d" % number, "PpmImagePlugin", "PpmImageFile") for number in range(1, 7)),
)
_BRANDS = {b"avif": "AvifImagePlugin", b"avis": "AvifImagePlugin"}
_OF_ONE_FILE = {
    errno.ENOENT: "no such file, or a link to none",
    errno.ENOTDIR: "no such file",
    errno.ELOOP: "a symbolic link that leads in a circle",
    errno.ENAMETOOLONG: "a name that is too long for the file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


class PhotoError(Exception):
    """A file is not a usable photo. ``str(error)`` is the reason only; the caller puts the file's name before it."""


class Header(NamedTuple):
    """A file opened by Pillow, with its pixels not yet read.

    Attributes:
        image: Pillow's image, in the size of the stored pixels (TIFF: with the orientation applied).
        form: "JPEG", "PNG", "TIFF", ...
        bits: bits of a stored sample.
        orientation: EXIF's 1 to 8, not applied yet.
        key: the colour that a PNG marks as transparent, in stored samples, or None.
        exif: the EXIF block, or None; TIFF has its content in tags.
    """

    image: ImageFile
    form: str
    bits: int
    orientation: int
    key: tuple[int, ...] | None = None
    exif: bytes | None = None

    def displayed_size(self) -> tuple[int, int]:
        """Return (width, height) with the EXIF orientation applied."""
        width, height = self.image.size
        return (height, width) if self.orientation >= 5 else (width, height)


def read_header(file: IO[bytes], max_pixels: int, heic: bool = False) -> Header:
    """Open an image file and read its header.

    Args:
        file: open at its start; it must stay open until the pixels are read.
        max_pixels: images with more pixels are refused.
        heic: accept HEIC, which pillow-heif reads.

    Raises:
        PhotoError: if the file is not a photo, is damaged, truncated, too large, or cannot be read.
    """
    with as_photo_errors():
        start = file.read(16)
        if not start:
            raise PhotoError("an empty file")
        file.seek(0)
        if _needs(file, start) > _length(file):
            raise PhotoError("cut short")
        image = _open(file, start, heic)
        width, height = image.size
        if width * height > max_pixels:
            raise PhotoError(f"{width}x{height} pixels, above the limit of {max_pixels / 1e6:.4g} million")
        form = image.format or "unknown"
        if form == "PNG":
            return _png(file, image)
        if form == "TIFF":
            return _tiff(file, image)
        exif = image.info.get("exif")
        return Header(image, form, 16 if image.mode.startswith("I") else 8, _orientation(exif), exif=exif)


@contextmanager
def as_photo_errors() -> Iterator[None]:
    """Convert any exception of the block, which parses or decodes one file, into a ``PhotoError``.

    The exceptions that parsers raise for damaged data cannot be listed, and none of them may end a job over many
    photos. Only a ``MemoryError`` is not caused by the file.
    """
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        raise PhotoError(_reason_of(error)) from error


def _reason_of(error: Exception) -> str:
    """Return why a parser failed, in words."""
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE):
        return f"cannot be read: {error.strerror}"
    text = printable(first_line(error))[:LONGEST_REASON]
    if "unknown pixel mode" in text:  # for example TIFF with floating-point colours
        return "an unsupported sample type; save it with 8 or 16 bits"
    return "cut short" if "truncated" in text.lower() else f"damaged: {text}"


def _open(file: IO[bytes], start: bytes, heic: bool) -> ImageFile:
    """Open the image with Pillow's class directly: ``Image.open`` would warn about sizes by a process-wide limit."""
    if heic and _is_heic(start):
        module, name, missing = "pillow_heif", "HeifImageFile", "HEIC; for it: pip install 'gramgan-plugin[heic]'"
    else:
        module, name = _form_of(start)
        module, missing = f"PIL.{module}", "not readable by this version of Pillow; convert it to PNG or JPEG"
    try:
        kind = getattr(importlib.import_module(module), name)
    except ImportError:
        raise PhotoError(missing) from None
    opened: ImageFile = kind(file)
    return opened


def _form_of(start: bytes) -> tuple[str, str]:
    for magic, module, name in _FORMS:
        if start.startswith(magic):
            return module, name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebPImagePlugin", "WebPImageFile"
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        if brand in _BRANDS:
            return _BRANDS[brand], "AvifImageFile"
        if _is_heic(start):
            raise PhotoError("HEIC, which is not supported; convert it to PNG or JPEG")
    raise PhotoError("not an image")


def _is_heic(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def _needs(file: IO[bytes], start: bytes) -> int:
    """Return the minimum file length by the first bytes: WebP states its length, TIFF the offset of its directory."""
    if start[:4] == b"RIFF":
        return 8 + int.from_bytes(start[4:8], "little")
    if start[:4] not in (b"II*\0", b"MM\0*"):
        return 0
    order: Literal["little", "big"] = "little" if start[:2] == b"II" else "big"
    begin = int.from_bytes(start[4:8], order)
    file.seek(begin)
    entries = int.from_bytes(file.read(2), order)
    file.seek(0)
    return begin + 2 + 12 * entries


def _png(file: IO[bytes], image: ImageFile) -> Header:
    """Read what Pillow would decode the pixels for: EXIF data after them, and whether the file is complete."""
    raw_mode, exif = str(image.tile[0][3]), image.info.get("exif")  # "RGB", "I;16B", "L;2", "1", ...
    bits = 16 if raw_mode.endswith(";16B") else int(raw_mode.partition(";")[2] or (1 if raw_mode == "1" else 8))
    key = image.info.get("transparency") if image.mode in _GRAY_OR_COLOURS else None
    if bits == 1 and key:
        key = 1  # Pillow has scaled it
    place = file.tell()
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise PhotoError("cut short")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IHDR" and file.tell() > 16:
            raise PhotoError("damaged: a second IHDR chunk")
        if kind == b"IEND" and len(file.read(4)) == 4:
            break
        if kind == b"eXIf":
            exif = file.read(length)
            length = 0
        file.seek(length + 4, 1)
    file.seek(place)
    return Header(image, "PNG", bits, _orientation(exif), None if key is None else _numbers(key), exif)


def _tiff(file: IO[bytes], image: ImageFile) -> Header:
    """Refuse samples that are not 8- or 16-bit integers; Pillow applies the orientation itself."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    kinds = {kind for kind in _numbers(tags.get(SAMPLE_FORMAT, 1)) if kind in TIFF_KINDS}
    bits = max(_numbers(tags.get(BITS_PER_SAMPLE, 1)))
    if kinds:
        raise PhotoError(f"{TIFF_KINDS[kinds.pop()]} samples, whose range is not known; save it with 8 or 16 bits")
    if bits > 8 and bits != 16:
        raise PhotoError(f"samples of {bits} bits; save it with 8 or 16 bits")
    if bits == 16 and tags.get(PLANAR_CONFIGURATION, 1) == 2:
        raise PhotoError("16 bits in separate planes; save it with interleaved samples")
    length = _length(file)
    for begins, lengths in TIFF_EXTENTS:
        if begins in tags and lengths in tags:
            ends = (a + b for a, b in zip(_numbers(tags[begins]), _numbers(tags[lengths]), strict=False))
            if max(ends, default=0) > length:
                raise PhotoError("cut short")
    return Header(image, "TIFF", bits, 1)


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),)  # type: ignore[call-overload]


def _length(file: IO[bytes]) -> int:
    place = file.tell()
    length = file.seek(0, 2)
    file.seek(place)
    return length


def _orientation(exif: bytes | None) -> int:
    """Return EXIF's orientation, 1 to 8; 1 if it is missing or invalid."""
    if not exif:
        return 1
    parsed = PillowImage.Exif()
    try:
        parsed.load(exif)
        value = parsed.get(ORIENTATION, 1)
    except Exception:  # a damaged block is ignored
        return 1
    return value if value in range(1, 9) else 1


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading; problems of this file alone are a ``PhotoError``.

    Raises:
        PhotoError: if it is missing, a folder, a pipe or a device, or reading is not permitted.
        OSError: for problems that affect other files, too.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise PhotoError("not a regular file")
        return path.open("rb")
    except OSError as error:
        if error.errno not in _OF_ONE_FILE:
            raise
        raise PhotoError(_OF_ONE_FILE[error.errno]) from error
