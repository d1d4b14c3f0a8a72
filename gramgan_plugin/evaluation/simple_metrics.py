"""PSNR, and NIQE where BasicSR is installed, of two pictures in memory."""

import math
import warnings

import cv2
import numpy as np

from gramgan_plugin.evaluation.pictures import Image

LEAST_SIDE = 192  # NIQE's blocks of 96 pixels need some of them


def psnr_y(image: Image, truth: Image, crop: int = 0) -> float:
    """Return the PSNR in dB of luma (BT.601, studio range), as the field measures super-resolution.

    Args:
        image: (H, W, 3) uint8 BGR.
        truth: the same size.
        crop: pixels left out at each border; fewer of an image that would have none left.

    Returns:
        Infinity for equal images.
    """
    crop = min(crop, (min(image.shape[:2]) - 1) // 2)
    inside = slice(crop, -crop or None)
    error = float(np.square(_luma(image) - _luma(truth))[inside, inside].mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def niqe(image: Image) -> float | None:
    """Return BasicSR's NIQE of (H, W, 3) uint8 BGR; None if BasicSR is not installed or the image is too small."""
    if min(image.shape[:2]) < LEAST_SIDE:
        return None
    try:
        from basicsr.metrics.niqe import calculate_niqe
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(calculate_niqe(image, crop_border=0, input_order="HWC", convert_to="y"))
    return value if math.isfinite(value) else None


def same_size(image: Image, truth: Image) -> Image:
    """Return ``truth`` cut at its lower and right border to the size of ``image``, as mod-crop does."""
    return truth[: image.shape[0], : image.shape[1]]


def from_rgb(image: Image) -> Image:
    """Return (H, W, 3) uint8 BGR of (H, W), (H, W, 1) or (H, W, 3) RGB, of uint8 or uint16."""
    shallow = image if image.dtype == np.uint8 else np.round(image / 257).astype(np.uint8)
    flat = shallow.reshape(*shallow.shape[:2], -1)
    return cv2.cvtColor(flat, cv2.COLOR_GRAY2BGR if flat.shape[2] == 1 else cv2.COLOR_RGB2BGR)


def _luma(image: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    weights = np.array([24.966, 128.553, 65.481]) / 255
    luma: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = image.astype(np.float64) @ weights + 16
    return luma
