"""Sizes of results, and resizing of pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def scaled_size(shape: Sequence[int], scale: float) -> tuple[int, int]:
    """Return the sides of a result, at least 1.

    Args:
        shape: of the image; it begins with height and width.
        scale: side of the result divided by side of the image.

    >>> scaled_size((3, 100, 3), 2.5)
    (8, 250)
    """
    height, width = shape[:2]
    return max(1, round(scale * height)), max(1, round(scale * width))


def resized(image: NDArray[Any], height: int, width: int, bicubic: bool = False) -> NDArray[Any]:
    """Resize (H, W, C) by Lanczos or a bicubic filter, both with antialiasing, a channel at a time in float32."""
    if image.shape[:2] == (height, width):
        return image
    result = np.empty((height, width, image.shape[2]), image.dtype)
    for channel in range(image.shape[2]):
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        kernel = Image.Resampling.BICUBIC if bicubic else Image.Resampling.LANCZOS
        small = np.asarray(plane.resize((width, height), kernel))
        result[..., channel] = np.clip(np.rint(small), 0, np.iinfo(image.dtype).max)
    return result
