"""What the header of an image file says: its form, size and depth. No pixel is decoded, Pillow's limits stay."""

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

# A damaged EXIF block makes Pillow warn; the photo is read all the same.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it logs of damage names no file

ORIENTATION = 0x0112  # the EXIF tag
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION, SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF
TIFF_EXTENTS = ((273, 279), (324, 325))  # where strips and tiles lie, and how long they are
LONGEST_REASON = 200  # characters of a parser's message: it may repeat what stands in the file
_GRAY_OR_COLOURS = ("1", "L", "I;16", "RGB")  # modes in which PNG names one colour as transparent
TIFF_KINDS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}

# First bytes -> the module of Pillow and its class. A form of Pillow's that is missing here is no photo.
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
    """A file that is no usable photo. ``str(error)`` is the reason alone; the caller puts the file's name before it."""


class Header(NamedTuple):
    """A file opened by Pillow, its pixels not yet read.

    Attributes:
        image: Pillow's image; its size is that of the stored pixels, except for TIFF, which Pillow turns.
        form: "JPEG", "PNG", "TIFF", ...
        bits: of a sample, as stored.
        orientation: EXIF's 1 to 8, still to be applied.
        key: the colour of PNG that means transparent, in samples as stored; None if there is none.
    """

    image: ImageFile
    form: str
    bits: int
    orientation: int
    key: tuple[int, ...] | None = None

    def displayed_size(self) -> tuple[int, int]:
        """(width, height) once it is turned as EXIF says."""
        width, height = self.image.size
        return (height, width) if self.orientation >= 5 else (width, height)


def read_header(file: IO[bytes], max_pixels: int) -> Header:
    """Open an image file and read its header.

    Args:
        file: open at its begin; it stays in use for the pixels.
        max_pixels: more are refused.

    Raises:
        PhotoError: if this is no photo, is damaged, cut short, too large, or of a kind that cannot be read.
    """
    with faults_of_file():
        start = file.read(16)
        if not start:
            raise PhotoError("an empty file")
        file.seek(0)
        if _needs(file, start) > _length(file):
            raise PhotoError("cut short")
        image = _open(file, start)
        width, height = image.size
        if width * height > max_pixels:
            raise PhotoError(f"{width}x{height} pixels, above the limit of {max_pixels / 1e6:.4g} million")
        form = image.format or "unknown"
        if form == "PNG":
            return _png(file, image)
        if form == "TIFF":
            return _tiff(file, image)
        return Header(image, form, 16 if image.mode.startswith("I") else 8, _orientation(image.info.get("exif")))


@contextmanager
def faults_of_file() -> Iterator[None]:
    """Turn whatever the block, which parses or decodes one file, raises into a ``PhotoError``.

    Which exceptions damaged data brings about in the parsers (Pillow's, OpenCV's, those here) cannot be listed; a job
    over many photos must not end with any of them. Only a lack of memory is not the file's fault.
    """
    try:
        yield
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        raise PhotoError(_reason_of(error)) from error


def _reason_of(error: Exception) -> str:
    """Return why a parser gave up, in words."""
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE):
        return f"cannot be read: {error.strerror}"
    text = printable(first_line(error))[:LONGEST_REASON]
    if "unknown pixel mode" in text:  # TIFF: floating-point colours, for one
        return "samples of a kind that is not read; save it with 8 or 16 bits"
    return "cut short" if "truncated" in text.lower() else f"damaged: {text}"


def _open(file: IO[bytes], start: bytes) -> ImageFile:
    """Pillow's class for these bytes, called by itself: ``Image.open`` warns of sizes by a limit of the process."""
    module, name = _form_of(start)
    try:
        kind = getattr(importlib.import_module(f"PIL.{module}"), name)
    except ImportError:
        raise PhotoError("no image that this version of Pillow reads; convert it to PNG or JPEG") from None
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
        if brand in _HEIC_BRANDS:
            raise PhotoError("HEIC, which is not read; convert it to PNG or JPEG")
    raise PhotoError("no image")


def _needs(file: IO[bytes], start: bytes) -> int:
    """Return how long the file must be by its first bytes: WebP states its length, TIFF where its directory lies."""
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
    """Add what Pillow would decode the pixels for: EXIF that stands behind them, and whether the file is whole."""
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
    return Header(image, "PNG", bits, _orientation(exif), None if key is None else _numbers(key))


def _tiff(file: IO[bytes], image: ImageFile) -> Header:
    """Refuse samples that have no 8- or 16-bit meaning; Pillow applies the orientation itself."""
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
    """1 to 8; 1 for none and for what makes no sense."""
    if not exif:
        return 1
    parsed = PillowImage.Exif()
    try:
        parsed.load(exif)
        value = parsed.get(ORIENTATION, 1)
    except Exception:  # a damaged block is as good as none
        return 1
    return value if value in range(1, 9) else 1


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading; what is wrong with this one file alone is a ``PhotoError``.

    Raises:
        PhotoError: if it is missing, a folder, a pipe or a device, or must not be read.
        OSError: for all that concerns other files, too.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise PhotoError("no regular file")
        return path.open("rb")
    except OSError as error:
        if error.errno not in _OF_ONE_FILE:
            raise
        raise PhotoError(_OF_ONE_FILE[error.errno]) from error
