"""PSNR and NIQE of two pictures in memory."""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from gramgan_plugin.evaluation import fidelity
from gramgan_plugin.evaluation import niqe as naturalness
from gramgan_plugin.utils.pictures import Image


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
    return fidelity.psnr(_batch(image), _batch(truth), crop).item()


def niqe(image: Image) -> float | None:
    """Return the NIQE of (H, W, 3) uint8 BGR; None if the image is too small or flat."""
    if min(image.shape[:2]) < naturalness.LEAST_SIDE:
        return None
    value = naturalness.niqe(_batch(image)).item()
    return value if math.isfinite(value) else None


def same_size(image: Image, truth: Image) -> Image:
    """Return ``truth`` cut at its lower and right border to the size of ``image``, as mod-crop does."""
    return truth[: image.shape[0], : image.shape[1]]


def from_rgb(image: Image) -> Image:
    """Return (H, W, 3) uint8 BGR of (H, W), (H, W, 1) or (H, W, 3) RGB, of uint8 or uint16."""
    shallow = image if image.dtype == np.uint8 else np.round(image / 257).astype(np.uint8)
    flat = shallow.reshape(*shallow.shape[:2], -1)
    return cv2.cvtColor(flat, cv2.COLOR_GRAY2BGR if flat.shape[2] == 1 else cv2.COLOR_RGB2BGR)


def _batch(image: Image) -> Tensor:
    """Return (1, 3, H, W) RGB."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[::-1]))[None]
