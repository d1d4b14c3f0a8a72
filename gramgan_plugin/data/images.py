"""Convert image files to arrays and back: 8-bit BGR, as in OpenCV."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.photo_wholeness import PhotoError, checked_png

Image = NDArray[np.uint8]  # (H, W, 3), BGR
DeepImage = NDArray[np.uint8] | NDArray[np.uint16]  # likewise

SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


def decode(data: bytes) -> Image | None:
    """Decode an image file to 8 bits and three channels, with its EXIF orientation applied.

    Returns:
        (H, W, 3) BGR, or None if OpenCV cannot decode it.
    """
    image = _decoded(data, cv2.IMREAD_COLOR)
    return None if image is None else image.astype(np.uint8, copy=False)


def decode_deep(data: bytes) -> DeepImage | None:
    """Decode an image file as `decode` does, but to 16 bits if it has them.

    Returns:
        (H, W, 3) BGR, uint8 or uint16, or None if OpenCV cannot decode it, or it has samples of another type.
    """
    image = _decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return image if image is not None and image.dtype in (np.uint8, np.uint16) else None


def _decoded(data: bytes, flags: int) -> NDArray[Any] | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        try:
            data = checked_png(data)  # costs 2 % of the time; libpng's own messages on stderr would name no file
        except PhotoError:
            return None
    try:
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # no bytes, or more pixels than OpenCV's limit
        return None
    return image


def read_image(path: Path) -> Image | None:
    """Decode the file at ``path``. It is read here, since OpenCV cannot open non-ASCII names on Windows.

    Returns:
        (H, W, 3) BGR, or None if it cannot be decoded.
    """
    return decode(np.fromfile(path, np.uint8).tobytes())


def encode_png(image: Image, compression_level: int) -> bytes:
    """Encode as PNG.

    Args:
        image: (H, W, 3) BGR.
        compression_level: 0 (fast, large) to 9.
    """
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, compression_level])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode an image of {image.shape} as PNG")
    return data.tobytes()


def mod_crop(image: Image, scale: int) -> Image:
    """Cut the right and lower border so that both sides are multiples of ``scale``."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def list_images(folder: Path, recursive: bool = False) -> list[str]:
    """Return the sorted names of a folder's image files, relative, with ``/``; hidden files are left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    relative = (path.relative_to(folder) for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts))
