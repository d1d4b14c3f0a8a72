"""Metrics for ``val: metrics:`` of option files, beside BasicSR's own; registered in its METRIC_REGISTRY.

Each takes images as BasicSR's do: (H, W, 3) uint8 BGR.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.evaluation.back_projection import lr_psnr
from gramgan_plugin.evaluation.feature_similarity import fsim, gmsd
from gramgan_plugin.evaluation.fidelity import mse
from gramgan_plugin.evaluation.perceptual import Dists, Lpips
from gramgan_plugin.evaluation.texture_distance import patch_swd, texture_distance
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC
from gramgan_plugin.prepare.shrink import shrink

__all__ = [
    "calculate_dists",
    "calculate_fsim",
    "calculate_gmsd",
    "calculate_lpips",
    "calculate_lr_psnr",
    "calculate_mse",
    "calculate_patch_swd",
    "calculate_texture_distance",
]

Image = NDArray[np.uint8]  # (H, W, 3) BGR
HWC = "HWC"


def calculate_mse(img: Image, img2: Image, crop_border: int = 0, input_order: str = HWC) -> float:
    """Return the mean squared error of RGB, in levels squared; see ``fidelity.mse``."""
    return _value(mse, img, img2, crop_border, input_order)


def calculate_gmsd(img: Image, img2: Image, crop_border: int = 0, input_order: str = HWC) -> float:
    """Return the gradient magnitude similarity deviation; see ``feature_similarity.gmsd``."""
    return _value(gmsd, img, img2, crop_border, input_order)


def calculate_fsim(img: Image, img2: Image, crop_border: int = 0, input_order: str = HWC) -> float:
    """Return the feature similarity; see ``feature_similarity.fsim``."""
    return _value(fsim, img, img2, crop_border, input_order)


def calculate_texture_distance(img: Image, img2: Image, crop_border: int = 0, input_order: str = HWC) -> float:
    """Return the distance of Gram statistics; see ``texture_distance.texture_distance``."""
    return _value(texture_distance, img, img2, crop_border, input_order)


def calculate_patch_swd(img: Image, img2: Image, crop_border: int = 0, input_order: str = HWC) -> float:
    """Return the sliced Wasserstein distance of patches; see ``texture_distance.patch_swd``."""
    return _value(patch_swd, img, img2, crop_border, input_order)


def calculate_lpips(
    img: Image, img2: Image, crop_border: int = 0, input_order: str = HWC, net: str = "alex", weights: str | None = None
) -> float:
    """Return LPIPS; ``net`` is "alex" or "vgg", ``weights`` its backbone's file; see ``perceptual.Lpips``."""
    return _value(_lpips(net, weights), img, img2, crop_border, input_order)


def calculate_dists(
    img: Image, img2: Image, crop_border: int = 0, input_order: str = HWC, weights: str | None = None
) -> float:
    """Return DISTS; ``weights`` is its backbone's file; see ``perceptual.Dists``."""
    return _value(_dists(weights), img, img2, crop_border, input_order)


def calculate_lr_psnr(img: Image, img2: Image, scale: int, input_order: str = HWC) -> float:
    """Return the PSNR of SR and GT, both reduced by MATLAB's bicubic; see ``back_projection.lr_psnr``."""
    sr, gt = (_tensor(image, input_order) for image in (img, img2))
    lq = shrink(np.ascontiguousarray(gt[0].permute(1, 2, 0).numpy()), scale, MATLAB_BICUBIC)
    return float(lr_psnr(sr, torch.from_numpy(lq).permute(2, 0, 1)[None]))


@cache
def _lpips(net: str, weights: str | None) -> Any:
    return Lpips(net, None if weights is None else Path(weights))


@cache
def _dists(weights: str | None) -> Any:
    return Dists(None if weights is None else Path(weights))


def _value(compute: Callable[..., Tensor], img: Image, img2: Image, crop: int, order: str) -> float:
    return float(compute(_tensor(img, order), _tensor(img2, order), crop))


def _tensor(image: Image, order: str) -> Tensor:
    """Return (1, 3, H, W) RGB."""
    if order not in (HWC, "CHW"):
        raise ValueError(f"input_order: expected HWC or CHW, got {order!r}")
    channels_first = image.transpose(2, 0, 1) if order == HWC else image
    return torch.from_numpy(np.ascontiguousarray(channels_first[::-1]))[None]
