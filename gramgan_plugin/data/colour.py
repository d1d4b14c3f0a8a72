"""Embedded colour profiles to sRGB."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_SAME = 1  # levels that a profile may move a colour and still count as sRGB


def moves_colours(profile: bytes | None, mode: str) -> bool:
    """Does an embedded profile make a difference?

    Args:
        profile: ICC data, or None.
        mode: Pillow's, of the image: RGB, L or CMYK.

    Returns:
        False for no profile, one that is damaged, that belongs to other colours than the mode's, or that is sRGB
        itself (no colour moves by more than a level).
    """
    return bool(profile) and _moves(profile, mode)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert by an embedded profile, if :func:`moves_colours`.

    Args:
        image: in mode RGB, L or CMYK.
        profile: ICC data, or None.

    Returns:
        The image in mode RGB, or the given one.
    """
    if profile is None or not moves_colours(profile, image.mode):
        return image
    return ImageCms.applyTransform(image, _transform(profile, image.mode)) or image


def _transform(profile: bytes, mode: str) -> Any:
    """LittleCMS refuses a profile of other colours than the mode's."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


@lru_cache(maxsize=64)
def _moves(profile: bytes, mode: str) -> bool:
    """Tried on a lattice of colours, since names of profiles are no guide; the photos of a camera share theirs."""
    try:
        transform = _transform(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False
    if mode == "CMYK":
        return True
    colours = _lattice() if mode == "RGB" else np.arange(256, dtype=np.uint8)[None]
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform)).astype(int)
    expected = colours if mode == "RGB" else colours[..., None]
    return bool(np.abs(moved - expected).max() > _SAME)


def _lattice() -> NDArray[np.uint8]:
    """(1, 729, 3): 9 levels of each primary."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)
