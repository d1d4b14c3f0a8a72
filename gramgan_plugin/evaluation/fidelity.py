"""PSNR, SSIM and MSE against GT, equal to BasicSR's functions to 1e-4, on batches and on any device that has float64.

With ``y`` they measure luma: BT.601 in studio range, not rounded to levels. Images are compared in float32; sums over
them are in float64.
"""

import torch
from torch import Tensor

from gramgan_plugin.evaluation.gaussian import gaussian_filter
from gramgan_plugin.evaluation.metric_inputs import cropped_pair

LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # of levels of R, G and B
PEAK = 255.0
RADIUS, SIGMA = 5, 1.5
BAND_PIXELS = 2**15
MIDDLE = 128.0  # subtracted before squares are taken: float32 then has enough digits for the variances
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def luma(images: Tensor) -> Tensor:
    """Return luma, BT.601 in studio range, not rounded to levels: 16 + (65.481 R + 128.553 G + 24.966 B) / 255.

    Args:
        images: (N, 3, H, W) uint8 RGB.

    Returns:
        (N, 1, H, W) float32 in [16, 235].
    """
    red, green, blue = images.to(torch.float32).unbind(dim=1)
    return red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).add_(16)[:, None]


def mse(sr: Tensor, gt: Tensor, crop: int = 0, y: bool = False) -> Tensor:
    """Return the mean squared error of each image, of levels in [0, 255].

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape and device.
        crop: pixels left out at each border.
        y: whether to measure luma instead of RGB.

    Returns:
        (N,) float64.

    Raises:
        ValueError: for another shape or type, or if ``crop`` is negative or leaves no pixels.

    Example:
        >>> black = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        >>> mse(black, black + 3)
        tensor([9.], dtype=torch.float64)
    """
    sr, gt = _planes(sr, gt, crop, y, least=1)
    return (sr - gt).square_().sum((1, 2, 3), dtype=torch.float64) / sr[0].numel()


def psnr(sr: Tensor, gt: Tensor, crop: int = 0, y: bool = True) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB: 10 log10(255^2 / MSE).

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape and device.
        crop: pixels left out at each border.
        y: whether to measure luma instead of RGB.

    Returns:
        (N,) float64; infinite for equal images.

    Raises:
        ValueError: as ``mse``.
    """
    return 10 * torch.log10(PEAK**2 / mse(sr, gt, crop, y))


def ssim(sr: Tensor, gt: Tensor, crop: int = 0, y: bool = True) -> Tensor:
    """Return the structural similarity of each image (Wang et al. 2004): the mean of its map, and of the channels.

    Means, variances and the covariance are taken in Gaussian windows of 11x11 pixels, sigma 1.5, that lie within the
    image; K1 = 0.01 and K2 = 0.03.

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape and device.
        crop: pixels left out at each border.
        y: whether to measure luma instead of RGB.

    Returns:
        (N,) float64 in [-1, 1].

    Raises:
        ValueError: for another shape or type, or if ``crop`` is negative or leaves fewer than 11 pixels of a side.
    """
    sr, gt = _planes(sr, gt, crop, y, least=2 * RADIUS + 1)
    count, channels, height, width = sr.shape
    inside = height - 2 * RADIUS
    # On a CPU bands of rows that stay in its cache take half of the time.
    band = inside if sr.is_cuda else max(16, BAND_PIXELS // (count * channels * width))
    total = torch.zeros(count, dtype=torch.float64, device=sr.device)
    for top in range(0, inside, band):
        rows = slice(top, top + band + 2 * RADIUS)
        total += _ssim_map(sr[..., rows, :] - MIDDLE, gt[..., rows, :] - MIDDLE).sum((1, 2, 3), dtype=torch.float64)
    return (total / (channels * inside * (width - 2 * RADIUS))).clamp_(-1, 1)


def _ssim_map(sr: Tensor, gt: Tensor) -> Tensor:
    """Return the similarity in each window, (N, C, H - 10, W - 10), of images from which ``MIDDLE`` was subtracted."""
    # The two variances are only needed as their sum, so four filters serve for five.
    maps = gaussian_filter(torch.stack((sr, gt, sr.square().addcmul_(gt, gt), sr * gt)), RADIUS, SIGMA)
    mean_sr, mean_gt, squares, products = maps
    covariance = products.addcmul_(mean_sr, mean_gt, value=-1)
    variances = squares.addcmul_(mean_sr, mean_sr, value=-1).addcmul_(mean_gt, mean_gt, value=-1)
    mean_sr, mean_gt = mean_sr.add_(MIDDLE), mean_gt.add_(MIDDLE)
    above = (mean_sr * mean_gt).mul_(2).add_(C1).mul_(covariance.mul_(2).add_(C2))
    below = mean_sr.square_().addcmul_(mean_gt, mean_gt).add_(C1).mul_(variances.add_(C2))
    return above.div_(below)


def _planes(sr: Tensor, gt: Tensor, crop: int, y: bool, least: int) -> tuple[Tensor, Tensor]:
    """Return what is compared, (N, 1 or 3, H, W)."""
    sr, gt = cropped_pair(sr, gt, crop, least)
    return (luma(sr), luma(gt)) if y else (sr.to(torch.float32), gt.to(torch.float32))
