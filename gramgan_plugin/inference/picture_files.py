"""Read pictures as they are: 8 or 16 bits, gray or RGB, alpha, with their profile and metadata.

Unlike ``data/photos``, which makes 8-bit sRGB for training, the values stay as stored.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from gramgan_plugin.data.colour import to_srgb
from gramgan_plugin.data.photo_headers import Header, PhotoError, as_photo_errors, read_header
from gramgan_plugin.data.photos import MAX_PIXELS, checked, deep_samples, read_bytes, turned
from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.picture_metadata import fitting_profile, upright_exif, upright_xmp
from gramgan_plugin.utils.text import printable

__all__ = ["Picture", "Samples", "open_picture", "read_picture"]

Samples = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16
_EXTRA_SAMPLES, _PREMULTIPLIED = 338, 1  # a tag of TIFF, and its value for colours multiplied by alpha
# Pillow's modes -> what they are decoded to. CMYK is converted by its profile.
_AS_GRAY, _AS_GRAY_AND_ALPHA, _AS_COLOURS_AND_ALPHA = ("1", "L"), ("LA", "La"), ("PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class Picture:
    """A picture in memory, upright.

    Attributes:
        pixels: (H, W, 3) RGB or (H, W, 1) gray, uint8 or uint16.
        alpha: (H, W) of the same type, 0 is transparent, or None. Colours are not multiplied by it.
        icc_profile: the profile of ``pixels``, or None.
        exif: the EXIF block with orientation 1, or None; starts with TIFF's byte order.
        xmp: the XMP packet, or None.
    """

    pixels: Samples
    alpha: Samples | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture: PNG, JPEG, WebP, TIFF, BMP, AVIF, GIF, PPM, and HEIC with pillow-heif.

    Values are those of the file, except: CMYK is converted to sRGB by its profile; palettes become RGB; 1 bit becomes
    8; colours of a TIFF that are multiplied by alpha are divided by it. EXIF's orientation is applied. Of a file with
    several pictures (TIFF, MPO, HEIC) the first is read. Thread-safe.

    Args:
        path: the file.
        max_pixels: pictures with more pixels are refused before decoding.

    Raises:
        PhotoError: if the file is not an image, damaged, truncated, too large, an animation, or has samples without a
            known range.
        OSError: for a disk error or a system limit.
    """
    data = read_bytes(path, max_pixels, heic=True)
    with as_photo_errors():
        header = read_header(io.BytesIO(data), max_pixels, heic=True)
        samples = turned(_decoded(checked(data, header), header), header.orientation)
        pixels, alpha = samples, None
        if samples.shape[2] in (2, 4):
            pixels, alpha = np.ascontiguousarray(samples[..., :-1]), np.ascontiguousarray(samples[..., -1])
        return Picture(
            pixels,
            alpha,
            None if header.image.mode == "CMYK" else fitting_profile(header, gray=pixels.shape[2] == 1),
            upright_exif(header),
            upright_xmp(header.image),
        )


def _decoded(data: bytes, header: Header) -> Samples:
    """Return (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA)."""
    image = header.image
    samples: Samples
    if header.bits == 16 and header.form in ("PNG", "TIFF") and image.mode != "CMYK":
        samples, unit = _sixteen_bits(data, header), 1
    else:
        image.load()
        samples, unit = _with_pillow(image, has_key=header.key is not None), 255 // min(255, 2**header.bits - 1)
    if header.key is not None and samples.shape[2] in (1, 3):  # PNG marks a gray level or colour as transparent
        key = np.array(header.key) * unit
        alpha = np.where((samples == key).all(axis=2, keepdims=True), 0, np.iinfo(samples.dtype).max)
        samples = np.concatenate([samples, alpha.astype(samples.dtype)], axis=2)
    return samples


def _sixteen_bits(data: bytes, header: Header) -> NDArray[np.uint16]:
    deep = np.atleast_3d(deep_samples(data, header))  # BGR or BGRA; gray and alpha, too, are BGRA
    if str(header.image.tile[0][3]).startswith("LA"):
        return np.ascontiguousarray(deep[..., [0, 3]])
    if deep.shape[2] == 1:
        return deep
    rgb, alpha = deep[..., 2::-1], deep[..., 3:]
    if header.image.mode != "RGBA":  # a fourth sample of a TIFF need not be alpha
        return np.ascontiguousarray(rgb)
    if header.form == "TIFF" and header.image.tag_v2.get(_EXTRA_SAMPLES) == (_PREMULTIPLIED,):  # type: ignore[attr-defined]
        divisor = np.maximum(alpha, 1).astype(np.uint64)
        rgb = np.minimum((rgb.astype(np.uint64) * 65535 + divisor // 2) // divisor, 65535).astype(np.uint16)
    return np.concatenate([rgb, alpha], axis=2)


def _with_pillow(image: ImageFile, has_key: bool) -> Samples:
    mode = image.mode
    if mode.startswith("I"):  # 16-bit PPM
        return np.asarray(image).clip(0, 65535).astype(np.uint16)[..., None]
    if mode == "CMYK":
        return np.asarray(to_srgb(image, image.info.get("icc_profile")).convert("RGB"))
    transparent = "transparency" in image.info and not has_key
    if mode in _AS_GRAY_AND_ALPHA or (mode in _AS_GRAY and transparent):
        return np.asarray(image.convert("LA"))
    if mode in _AS_GRAY:
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGBA" if mode in _AS_COLOURS_AND_ALPHA or transparent else "RGB"))


def open_picture(path: Path) -> Picture:
    """Read a picture that a command needs.

    Raises:
        UserError: naming the file, if it cannot be used.
    """
    try:
        return read_picture(path)
    except PhotoError as error:
        raise UserError(f"{printable(str(path))}: {error}") from error
