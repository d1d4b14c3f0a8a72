"""Find the pixels of SR that look like artifacts: LDL's map (Liang, Zeng and Zhang, CVPR 2022)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.utils.precision import at_least_float32


def artifact_map(sr: Tensor, gt: Tensor, sr_average: Tensor, window: int = 7) -> Tensor:
    """Return how much each pixel of SR looks like an artifact.

    The residual |SR - GT|, summed over the channels, varies strongly around artifacts: the map is its variance within a
    window, times the fifth root of its variance over the image, which measures how well the whole image is restored.
    It is 0 where SR is nearer to GT than the averaged network's SR, whose artifacts are fewer.

    Args:
        sr: (N, C, H, W).
        gt: the same of GT.
        sr_average: the same of the averaged network.
        window: side of the window, odd; the image is reflected at its border.

    Returns:
        (N, 1, H, W), at least 0, in the units of the residual to the power 2.4; no gradient flows into it.

    Raises:
        ValueError: if ``window`` is not odd, or H or W is less than half of it.

    Example:
        >>> gt = torch.zeros(1, 3, 9, 9)
        >>> artifact_map(gt + 0.5, gt, gt + 1.0).abs().max()
        tensor(0.)
    """
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window: expected an odd number from 3 on, got {window}")
    with torch.no_grad():
        sr, gt, sr_average = at_least_float32(sr, gt, sr_average)
        residual, of_average = ((image - gt).abs().sum(dim=1, keepdim=True) for image in (sr, sr_average))
        around = F.pad(residual, (window // 2,) * 4, mode="reflect")
        mean = residual.mean(dim=(2, 3), keepdim=True)  # subtracted, so that the squares do not cancel
        pixels = window**2
        squares, means = (F.avg_pool2d(x, window, stride=1) for x in ((around - mean).square(), around - mean))
        local = (squares - means.square()).clamp_min(0) * (pixels / (pixels - 1))
        whole = residual.var(dim=(1, 2, 3), keepdim=True) ** 0.2
        return torch.where(residual < of_average, 0.0, local * whole)
