"""Decode users' photos to the 8-bit sRGB, in BGR order, that training takes.

An ordinary file (8 bits, RGB or gray, JPEG or PNG, no profile) gives the same pixels as OpenCV's ``IMREAD_COLOR``, in
little more time. Other files are converted or refused with a :class:`PhotoError`; see ``docs/data.md``.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from gramgan_plugin.data.colour import changes_colours, to_srgb
from gramgan_plugin.data.images import Image
from gramgan_plugin.data.photo_headers import (
    PHOTOMETRIC,
    Header,
    PhotoError,
    as_photo_errors,
    open_regular,
    read_header,
)
from gramgan_plugin.data.photo_wholeness import check_jpeg_whole, checked_png, plain_tiff

__all__ = [
    "MAX_PIXELS",
    "PhotoError",
    "PhotoInfo",
    "checked",
    "decode_photo",
    "deep_samples",
    "photo_info",
    "read_bytes",
    "read_photo",
    "turned",
]

Sample = TypeVar("Sample", np.uint8, np.uint16)

MAX_PIXELS = 178_000_000
BYTES_PER_PIXEL = 16  # a longer file is not a photo and is not read into memory
# EXIF's orientations: whether to transpose, then reverse rows, then reverse columns.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_ORDINARY = {"JPEG": ("L", "RGB"), "PNG": ("1", "L", "P", "RGB")}
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_READ = ("1", "L", "P", "RGB", "RGBX", "YCbCr", "CMYK", "I;16", "I;16B", "I", *WITH_ALPHA)


class PhotoInfo(NamedTuple):
    """The content of a photo's header.

    Attributes:
        width: in pixels, with the EXIF orientation applied.
        height: likewise.
        format: "JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM" or "AVIF".
        mode: Pillow's name for the stored pixels: "L", "RGB", "P", "CMYK", ...
        bits: bits of a stored sample.
    """

    width: int
    height: int
    format: str
    mode: str
    bits: int


def photo_info(photo: Path | bytes, max_pixels: int = MAX_PIXELS) -> PhotoInfo:
    """Read a photo's header; no pixel is decoded.

    Args:
        photo: the file's path, or its bytes.
        max_pixels: photos with more pixels are refused.

    Raises:
        PhotoError: if the header shows that the file is not a usable photo.
    """
    with io.BytesIO(photo) if isinstance(photo, bytes) else open_regular(photo) as file:
        header = read_header(file, max_pixels)
        return PhotoInfo(*header.displayed_size(), header.form, header.image.mode, header.bits)


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Read and decode a photo; see :func:`decode_photo`.

    Raises:
        PhotoError: if the file is not a usable photo, or cannot be opened.
        OSError: for a disk error or a system limit.
    """
    return decode_photo(read_bytes(path, max_pixels), max_pixels)


def read_bytes(path: Path, max_pixels: int = MAX_PIXELS, heic: bool = False) -> bytes:
    """Return a photo's bytes, after a check of its header and length.

    Args:
        path: the file.
        max_pixels: photos with more pixels are refused.
        heic: accept HEIC, too.

    Raises:
        PhotoError: as :func:`read_photo`.
        OSError: likewise.
    """
    with open_regular(path) as file:
        read_header(file, max_pixels, heic)
        most = BYTES_PER_PIXEL * max_pixels
        if file.seek(0, 2) > most:
            raise PhotoError(f"a file above {most / 1e9:.4g} GB, too large for a photo")
        with as_photo_errors():
            file.seek(0)
            return file.read()


def decode_photo(data: bytes, max_pixels: int = MAX_PIXELS, manage_colours: bool = True) -> Image:
    """Decode a photo to 8 bits and three channels in sRGB, with its EXIF orientation applied.

    16-bit samples are scaled and rounded; an opaque alpha channel is dropped; embedded profiles other than sRGB are
    converted, damaged ones ignored; of a file with several pictures (TIFF, MPO) the first is taken. Thread-safe.

    Args:
        data: the file's bytes.
        max_pixels: photos with more pixels are refused before decoding.
        manage_colours: convert by an embedded profile; otherwise values stay as stored, as BasicSR reads benchmark
            sets.

    Returns:
        (H, W, 3) BGR.

    Raises:
        PhotoError: if the file is not an image, damaged, truncated, too large, transparent, an animation, or has
            samples without a known range.
    """
    with as_photo_errors():
        return _decoded(data, read_header(io.BytesIO(data), max_pixels), manage_colours)


def _decoded(data: bytes, header: Header, manage_colours: bool) -> Image:
    data = checked(data, header)
    if not manage_colours:
        header.image.info.pop("icc_profile", None)
    if _is_ordinary(header):
        pixels = _opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION).astype(np.uint8, copy=False)
        managed = _managed(pixels, header)
    elif header.bits == 16 and header.form in ("PNG", "TIFF"):
        managed = _managed(_sixteen_bits(data, header), header)
    else:
        managed = _pillow(header)
    return turned(managed, header.orientation)


def checked(data: bytes, header: Header) -> bytes:
    """Return a file's bytes without what decoders would only warn about, after a check that it is one whole photo.

    Raises:
        PhotoError: if it is an animation, truncated, damaged, or in a mode that is not read.
    """
    if header.form in ("GIF", "PNG", "WEBP", "AVIF") and header.image.is_animated:  # type: ignore[attr-defined]
        raise PhotoError("an animation; save the frame that you want as a photo")
    if header.image.mode not in _READ:
        raise PhotoError(f"colours in mode {header.image.mode}; save it as RGB")
    if header.form == "JPEG":
        check_jpeg_whole(data)
    return checked_png(data) if header.form == "PNG" else data


def _is_ordinary(header: Header) -> bool:
    return (
        header.image.mode in _ORDINARY.get(header.form, ())
        and header.bits <= 8
        and "transparency" not in header.image.info
    )


def deep_samples(data: bytes, header: Header) -> NDArray[np.uint16]:
    """Decode a PNG or TIFF of 16 bits; Pillow would truncate colours to the high byte.

    Args:
        data: from :func:`checked`.
        header: its header.

    Returns:
        (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, black is 0. EXIF's orientation is not applied.

    Raises:
        PhotoError: if OpenCV cannot decode it.
    """
    deep = _opencv(plain_tiff(data) if header.form == "TIFF" else data, cv2.IMREAD_UNCHANGED)
    if deep.dtype != np.uint16:
        raise PhotoError("16 bits in a form that OpenCV cannot decode; save it with 8 bits")
    if header.form == "TIFF" and header.image.tag_v2.get(PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        return np.asarray(65535 - deep, np.uint16)
    return np.asarray(deep, np.uint16)


def _opencv(data: bytes, flags: int) -> NDArray[Any]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise PhotoError("damaged: OpenCV cannot decode it") from error
    if pixels is None:
        raise PhotoError("damaged: OpenCV cannot decode it")
    return pixels


def _sixteen_bits(data: bytes, header: Header) -> Image:
    """Return (H, W, 3) BGR, each sample rounded to 256 levels."""
    deep = deep_samples(data, header)
    if deep.ndim == 3 and deep.shape[2] == 4:
        _check_opaque(int(deep[..., 3].min()), 65535)
    elif header.key is not None and deep.ndim == 2 and (deep == header.key[0]).any():
        _check_opaque(0, 65535)
    levels = ((deep.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if levels.ndim == 2:
        return np.repeat(levels[..., None], 3, axis=2)
    return np.ascontiguousarray(levels[..., :3])


def _managed(pixels: Image, header: Header) -> Image:
    """Convert decoded BGR by the file's profile."""
    profile = header.image.info.get("icc_profile")
    gray = header.image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")
    if not changes_colours(profile, "L" if gray else "RGB"):
        return pixels
    stored = np.ascontiguousarray(pixels[..., 0]) if gray else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return _bgr(to_srgb(PillowImage.fromarray(stored), profile))


def _pillow(header: Header) -> Image:
    """Decode with Pillow what OpenCV does not read correctly."""
    image = header.image
    image.load()
    if image.mode.startswith("I"):
        levels = (np.asarray(image).astype(np.int64).clip(0, 65535) * 255 + 32767) // 65535
        return _managed(np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2), header)
    flat = _without_alpha(image, header)
    return _bgr(to_srgb(flat, image.info.get("icc_profile")).convert("RGB"))


def _without_alpha(image: PillowImage.Image, header: Header) -> PillowImage.Image:
    """Return the image in mode L, RGB or CMYK."""
    if header.key is not None:  # PNG marks a gray level or colour as transparent
        samples = np.atleast_3d(np.asarray(image.convert("L") if image.mode == "1" else image))
        key = np.array(header.key) * (255 // (2**header.bits - 1))
        _check_opaque(255 * int(not (samples == key).all(axis=-1).any()), 255)
    elif image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        _check_opaque(int(np.asarray(image)[..., 3].min()), 255)
    if image.mode in ("L", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _check_opaque(least: int, opaque: int) -> None:
    if least < opaque:
        raise PhotoError("transparent in places; flatten it onto a background")


def _bgr(image: PillowImage.Image) -> Image:
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def turned(pixels: NDArray[Sample], orientation: int) -> NDArray[Sample]:
    """Apply EXIF's orientation, 1 to 8, to (H, W, C)."""
    transpose, rows, columns = _TURNS[orientation]
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    if rows:
        pixels = pixels[::-1]
    if columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
