"""Photos as users have them, to the 8-bit BGR in sRGB that training takes.

An ordinary file (8 bits, RGB or gray, JPEG or PNG, no profile) has the very pixels of OpenCV's ``IMREAD_COLOR``, and
costs little more. All else is brought there or refused by a :class:`PhotoError`; see ``docs/data.md``.
"""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image as PillowImage

from gramgan_plugin.data.colour import moves_colours, to_srgb
from gramgan_plugin.data.images import Image
from gramgan_plugin.data.photo_headers import PHOTOMETRIC, Header, PhotoError, faults_of_file, open_regular, read_header
from gramgan_plugin.data.photo_wholeness import check_jpeg_whole, checked_png, plain_tiff

__all__ = ["MAX_PIXELS", "PhotoError", "PhotoInfo", "decode_photo", "photo_info", "read_bytes", "read_photo"]

MAX_PIXELS = 178_000_000
BYTES_PER_PIXEL = 16  # no file of a photo is longer; what claims to be one is not read into memory
# EXIF's orientations: transpose first, then reverse rows, then reverse columns.
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
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_READ = ("1", "L", "P", "RGB", "RGBX", "YCbCr", "CMYK", "I;16", "I;16B", "I", *_WITH_ALPHA)


class PhotoInfo(NamedTuple):
    """What a header says.

    Attributes:
        width: in pixels as displayed, hence turned as EXIF says.
        height: the same.
        format: "JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM" or "AVIF".
        mode: Pillow's name for the pixels as stored: "L", "RGB", "P", "CMYK", ...
        bits: of a sample as stored.
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
        max_pixels: more are refused.

    Raises:
        PhotoError: if the header alone shows that it is no usable photo.
    """
    with io.BytesIO(photo) if isinstance(photo, bytes) else open_regular(photo) as file:
        header = read_header(file, max_pixels)
        return PhotoInfo(*header.displayed_size(), header.form, header.image.mode, header.bits)


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Read and decode a photo: see :func:`decode_photo`.

    Raises:
        PhotoError: if it is no usable photo, or cannot be opened.
        OSError: if the disk or a limit of the system fails.
    """
    return decode_photo(read_bytes(path, max_pixels), max_pixels)


def read_bytes(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return the file of a photo, once its header and length show that it may be one.

    Raises:
        PhotoError: as :func:`read_photo`.
        OSError: likewise.
    """
    with open_regular(path) as file:
        read_header(file, max_pixels)
        most = BYTES_PER_PIXEL * max_pixels
        if file.seek(0, 2) > most:
            raise PhotoError(f"a file above {most / 1e9:.4g} GB, too large for a photo")
        with faults_of_file():
            file.seek(0)
            return file.read()


def decode_photo(data: bytes, max_pixels: int = MAX_PIXELS, manage_colours: bool = True) -> Image:
    """Decode a photo to 8 bits and three channels in sRGB, turned as its EXIF orientation says.

    16 bits are scaled with rounding; an opaque alpha channel is dropped; embedded profiles other than sRGB are
    converted, damaged ones ignored; of several pages or pictures in a file (TIFF, MPO) the first is taken. It may run
    in several threads at once.

    Args:
        data: the file.
        max_pixels: more are refused before decoding.
        manage_colours: convert by an embedded profile; otherwise the numbers stay as they are stored, which is how
            BasicSR reads benchmark sets.

    Returns:
        (H, W, 3) BGR.

    Raises:
        PhotoError: if it is damaged, cut short, no image, too large, transparent, an animation, or has samples
            without a known range.
    """
    with faults_of_file():
        return _decoded(data, read_header(io.BytesIO(data), max_pixels), manage_colours)


def _decoded(data: bytes, header: Header, manage_colours: bool) -> Image:
    if header.form in ("GIF", "PNG", "WEBP", "AVIF") and header.image.is_animated:  # type: ignore[attr-defined]
        raise PhotoError("an animation; save the frame that you want as a photo")
    if not manage_colours:
        header.image.info.pop("icc_profile", None)
    if header.image.mode not in _READ:
        raise PhotoError(f"colours of the kind {header.image.mode}; save it as RGB")
    if header.form == "JPEG":
        check_jpeg_whole(data)
    elif header.form == "PNG":
        data = checked_png(data)
    if _is_ordinary(header):
        pixels = _opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        managed = _managed(pixels, header)
    elif header.bits == 16 and header.form in ("PNG", "TIFF"):
        data = plain_tiff(data) if header.form == "TIFF" else data
        managed = _managed(_sixteen_bits(data, header), header)
    else:
        managed = _pillow(header)
    return _turned(managed, header.orientation)


def _is_ordinary(header: Header) -> bool:
    return (
        header.image.mode in _ORDINARY.get(header.form, ())
        and header.bits <= 8
        and "transparency" not in header.image.info
    )


def _opencv(data: bytes, flags: int) -> Image:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise PhotoError("damaged: OpenCV cannot decode it") from error
    if pixels is None:
        raise PhotoError("damaged: OpenCV cannot decode it")
    return pixels


def _sixteen_bits(data: bytes, header: Header) -> Image:
    """(H, W, 3) BGR, each sample the nearest of 256 levels; Pillow would cut the low byte off colours."""
    deep = _opencv(data, cv2.IMREAD_UNCHANGED)  # (H, W), (H, W, 3) or (H, W, 4)
    if deep.dtype != np.uint16:
        raise PhotoError("16 bits of a kind that OpenCV cannot decode; save it with 8 bits")
    if header.form == "TIFF" and header.image.tag_v2.get(PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        deep = 65535 - deep  # white is 0
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
    if not moves_colours(profile, "L" if gray else "RGB"):
        return pixels
    stored = np.ascontiguousarray(pixels[..., 0]) if gray else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return _bgr(to_srgb(PillowImage.fromarray(stored), profile))


def _pillow(header: Header) -> Image:
    """Decode all that OpenCV does not read right, at Pillow's speed."""
    image = header.image
    image.load()
    if image.mode.startswith("I"):
        levels = (np.asarray(image).astype(np.int64).clip(0, 65535) * 255 + 32767) // 65535
        return _managed(np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2), header)
    flat = _without_alpha(image, header)
    return _bgr(to_srgb(flat, image.info.get("icc_profile")).convert("RGB"))


def _without_alpha(image: PillowImage.Image, header: Header) -> PillowImage.Image:
    """Return the image in mode L, RGB or CMYK."""
    if header.key is not None:  # a gray level or colour of PNG that means transparent
        samples = np.atleast_3d(np.asarray(image.convert("L") if image.mode == "1" else image))
        key = np.array(header.key) * (255 // (2**header.bits - 1))
        _check_opaque(255 * int(not (samples == key).all(axis=-1).any()), 255)
    elif image.mode in _WITH_ALPHA or "transparency" in image.info:
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


def _turned(pixels: Image, orientation: int) -> Image:
    transpose, rows, columns = _TURNS[orientation]
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    if rows:
        pixels = pixels[::-1]
    if columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
