"""The metrics of ``basicsr benchmark``: what each needs, how it is computed, and how it is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.back_projection import lr_psnr
from gramgan_plugin.evaluation.feature_similarity import fsim, gmsd
from gramgan_plugin.evaluation.fidelity import mse, psnr, ssim
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.niqe import niqe
from gramgan_plugin.evaluation.perceptual import Dists, Lpips
from gramgan_plugin.evaluation.texture_distance import patch_swd, texture_distance
from gramgan_plugin.utils.text import did_you_mean, shown

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Compared:
    """What several models make of an image, to measure together.

    Attributes:
        sr, gt: (N, 3, H, W) uint8 RGB; all of GT are the same.
        lq: (N, 3, h, w) uint8 RGB, likewise.
        crop: pixels left out at each border.
    """

    sr: Tensor
    gt: Tensor
    lq: Tensor
    crop: int

    @classmethod
    def of(cls, sr: Sequence[Pixels], gt: Pixels, lq: Pixels, crop: int, device: torch.device) -> "Compared":
        """Return the images, given as (H, W, 3) RGB, on a device."""
        n = len(sr)
        a, b, c = (torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).to(device) for x in (sr, (gt,), (lq,)))
        return cls(a, b.expand(n, -1, -1, -1), c.expand(n, -1, -1, -1), crop)

    def one_by_one(self) -> list["Compared"]:
        """Return the images of each model."""
        parts = zip(*(images.split(1) for images in (self.sr, self.gt, self.lq)), strict=True)
        return [Compared(sr, gt, lq, self.crop) for sr, gt, lq in parts]


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        label: its name, and how it is shown.
        compute: images -> (N,).
    """

    label: MetricLabel
    compute: Callable[[Compared], Tensor]


# Name -> label, better, decimals, unit; in the order of the columns.
LABELS = {
    label.name: label
    for label in (
        MetricLabel("psnr_y", "PSNR-Y", "higher", 2, "dB"),
        MetricLabel("ssim_y", "SSIM-Y", "higher", 4),
        MetricLabel("psnr", "PSNR-RGB", "higher", 2, "dB"),
        MetricLabel("ssim", "SSIM-RGB", "higher", 4),
        MetricLabel("mse", "MSE", "lower", 1),
        MetricLabel("lpips", "LPIPS", "lower", 4),
        MetricLabel("lpips_vgg", "LPIPS (VGG)", "lower", 4),
        MetricLabel("dists", "DISTS", "lower", 4),
        MetricLabel("niqe", "NIQE", "lower", 2),
        MetricLabel("gmsd", "GMSD", "lower", 4),
        MetricLabel("fsim", "FSIM", "higher", 4),
        MetricLabel("lr_psnr", "LR-PSNR", "higher", 2, "dB"),
        MetricLabel("texture", "texture distance", "lower", 4),
        MetricLabel("swd", "patch SWD", "lower", 4),
    )
}
DEFAULT = ("psnr_y", "ssim_y", "lpips", "dists", "niqe", "lr_psnr", "texture")

_PLAIN: dict[str, Callable[[Compared], Tensor]] = {
    "psnr_y": lambda one: psnr(one.sr, one.gt, one.crop, y=True),
    "ssim_y": lambda one: ssim(one.sr, one.gt, one.crop, y=True),
    "psnr": lambda one: psnr(one.sr, one.gt, one.crop, y=False),
    "ssim": lambda one: ssim(one.sr, one.gt, one.crop, y=False),
    "mse": lambda one: mse(one.sr, one.gt, one.crop),
    "niqe": lambda one: niqe(one.sr, one.crop),
    "gmsd": lambda one: gmsd(one.sr, one.gt, one.crop),
    "fsim": lambda one: fsim(one.sr, one.gt, one.crop),
    "lr_psnr": lambda one: lr_psnr(one.sr, one.lq, one.crop),
    "texture": lambda one: texture_distance(one.sr, one.gt, one.crop),
    "swd": lambda one: patch_swd(one.sr, one.gt, one.crop),
}
# Those that need a network's weights.
_BY_NETWORK: dict[str, Callable[[], Callable[[Tensor, Tensor, int], Tensor]]] = {
    "lpips": lambda: Lpips("alex"),
    "lpips_vgg": lambda: Lpips("vgg"),
    "dists": lambda: Dists(),
}


def choose_metrics(names: Sequence[str]) -> tuple[list[Metric], dict[str, str]]:
    """Return metrics by name, and those whose weights are not on this machine, with the reason.

    Raises:
        UserError: for an unknown name.
    """
    found, unavailable = [], {}
    for name in dict.fromkeys(names):
        if name not in LABELS:
            hint = did_you_mean(name, LABELS, f"; there are {', '.join(LABELS)}")
            raise UserError(f"--metrics: no metric {shown(name)!r}{hint}")
        if name in _PLAIN:
            found.append(Metric(LABELS[name], _PLAIN[name]))
            continue
        try:
            network = _BY_NETWORK[name]()
        except UserError as error:
            unavailable[name] = str(error)
            continue
        found.append(Metric(LABELS[name], _with_network(network)))
    return found, unavailable


def _with_network(network: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[[Compared], Tensor]:
    return lambda one: network(one.sr, one.gt, one.crop)
