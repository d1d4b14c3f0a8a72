"""Prepare transparent pictures for upscaling, and lay them on white for formats without alpha."""

import numpy as np
from scipy.ndimage import distance_transform_edt

from gramgan_plugin.inference.picture_files import Samples


def fill_transparent(pixels: Samples, alpha: Samples) -> Samples:
    """Replace the colours of fully transparent pixels by those of the nearest visible pixel.

    These colours are arbitrary, often black; an upscaler would mix them into the edges of what is visible.

    Args:
        pixels: (H, W, C).
        alpha: (H, W), 0 is transparent.

    Returns:
        (H, W, C); the given array if no pixel is transparent, or all are.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    filled: Samples = pixels[rows, columns]
    return filled


def on_white(pixels: Samples, alpha: Samples) -> Samples:
    """Lay a picture on white.

    Args:
        pixels: (H, W, C), not multiplied by alpha.
        alpha: (H, W) of the same type, 0 is transparent.

    Returns:
        (H, W, C), rounded.
    """
    white = np.uint64(np.iinfo(pixels.dtype).max)
    opacity = alpha[..., None].astype(np.uint64)
    mixed: Samples = ((pixels * opacity + white * (white - opacity) + white // 2) // white).astype(pixels.dtype)
    return mixed
