"""Convert embedded colour profiles to sRGB."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_SAME = 1  # a profile that changes every colour by at most so many levels counts as sRGB


def changes_colours(profile: bytes | None, mode: str) -> bool:
    """Return whether an embedded profile changes the colours.

    Args:
        profile: ICC data, or None.
        mode: Pillow's mode of the image: RGB, L or CMYK.

    Returns:
        False without a profile, or if it is damaged, does not fit the mode, or is sRGB (no colour changes by more
        than one level).
    """
    return bool(profile) and _changes(profile, mode)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by an embedded profile, if :func:`changes_colours`.

    Args:
        image: in mode RGB, L or CMYK.
        profile: ICC data, or None.

    Returns:
        The image in mode RGB, or the given image.
    """
    if profile is None or not changes_colours(profile, image.mode):
        return image
    return ImageCms.applyTransform(image, _transform(profile, image.mode)) or image


def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform to sRGB; LittleCMS refuses a profile that does not fit the mode."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


@lru_cache(maxsize=64)
def _changes(profile: bytes, mode: str) -> bool:
    """Apply the profile to a grid of colours, since profile names are unreliable. Cached for photos of one camera."""
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
    """Return (1, 729, 3): 9 levels of each primary."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)
