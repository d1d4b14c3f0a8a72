"""NIQE, the naturalness of an image without GT (Mittal, Soundararajan and Bovik 2013), equal to BasicSR's.

``niqe_pristine.npz`` holds the mean (36,) and the covariance (36, 36) of the features of pristine images. The numbers
are those that the authors of NIQE published with their code, as BasicSR (Apache-2.0) distributes them in
``basicsr/metrics/niqe_pris_params.npz``.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.evaluation.gaussian import gaussian_filter
from gramgan_plugin.evaluation.metric_inputs import check_images, without_border
from gramgan_plugin.functional.matlab_bicubic import symmetric_index

BLOCK = 96  # pixels a side, at full size; half of them at half size
LEAST_SIDE = 2 * BLOCK
RADIUS, SIGMA = 3, 7 / 6
HALVING = (-3, -9, 29, 111, 111, 29, -9, -3)  # MATLAB's antialiased bicubic weights at 1 / 2, times 256
NEAR = 4e-6  # more than float32's error of a moment ratio, relative to it
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(image: Tensor, crop: int = 0) -> Tensor:
    """Return the NIQE of each image: the distance of its features' distribution from that of pristine images.

    Computed on the CPU, whatever the image's device: the last bits matter (see ``_fit``), and a GPU takes longer (35 ms
    and 10 for 481x321 pixels), since there are many small steps.

    Args:
        image: (N, 3, H, W) uint8 RGB.
        crop: pixels left out at each border.

    Returns:
        (N,) float64, lower is better; NaN for an image with fewer than two blocks that are not flat.

    Raises:
        ValueError: for another shape or type, or if ``crop`` is negative or leaves fewer than 2x2 blocks of 96 pixels.
    """
    check_images("image", image)
    levels = _luma(without_border(image, crop, LEAST_SIDE).cpu()).round()
    levels = levels[..., : levels.shape[-2] // BLOCK * BLOCK, : levels.shape[-1] // BLOCK * BLOCK]
    scales = ((levels, BLOCK), (_halved(levels), BLOCK // 2))
    features = [_features(_normalized(one), side) for one, side in scales]
    return _distance(torch.cat(features, -1)).to(image.device)


def _halved(levels: Tensor) -> Tensor:
    """Return (N, 1, H, W) levels as MATLAB's bicubic imresize by 1 / 2 has them, (N, 1, H / 2, W / 2).

    Computes in float32 and in the steps of BasicSR's function, with products of matrices of the same shape and layout,
    since the last bits matter and a processor's library sums in another order for each.
    """
    height, width = levels.shape[-2:]
    weights = torch.tensor(HALVING, dtype=levels.dtype) / 256
    reach = len(HALVING) // 2 - 1
    around, beside = (symmetric_index(-reach, side + reach, side) for side in (height, width))
    halves = []
    for image in (levels / 255).flatten(0, 1):
        tall = image.index_select(0, around)
        rows = torch.stack([tall[n : n + len(HALVING)].t().mv(weights) for n in range(0, height, 2)])
        wide = rows.index_select(1, beside)
        halves.append(torch.stack([wide[:, n : n + len(HALVING)].mv(weights) for n in range(0, width, 2)], 1))
    return torch.stack(halves)[:, None] * 255


def _normalized(levels: Tensor) -> Tensor:
    """Return (N, 1, H, W) levels minus their local mean, divided by their local standard deviation plus 1.

    Filters in float64 and rounds to float32, as BasicSR does: where an image is flat the result is zero exactly, and
    zeros count as neither positive nor negative below.
    """
    both = F.pad(torch.cat((levels, levels.square()), 1), (RADIUS,) * 4, mode="replicate")
    mean, square = gaussian_filter(both.to(torch.float64), RADIUS, SIGMA).to(torch.float32).split(1, 1)
    variance = (square - mean.square()).abs_()
    # torch's root of float32 is not always the nearest number.
    return (levels - mean) / (variance.to(torch.float64).sqrt_().to(torch.float32) + 1)


def _features(normalized: Tensor, side: int) -> Tensor:
    """Return the 18 features of each block of (N, 1, H, W): (N, blocks, 18) float64."""
    blocks = normalized.squeeze(1).unflatten(1, (-1, side)).unflatten(-1, (-1, side))  # (N, rows, side, columns, side)
    blocks = blocks.transpose(2, 3).flatten(1, 2)  # (N, blocks, side, side)
    alpha, left, right, _ = _fit(blocks)
    features = [alpha, (left + right) / 2]
    for shift in NEIGHBOURS:
        alpha, left, right, ratio = _fit(blocks * blocks.roll(shift, (-2, -1)))
        features += [alpha, (right - left) * ratio, left, right]
    return torch.stack(features, -1)


def _fit(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fit an asymmetric generalized Gaussian to each (N, blocks, side, side) block by its moments.

    Alpha is the nearest of a table in steps of 0.001, and one step in one block can change NIQE by 0.003. So where two
    steps are nearly as near, the moments are computed again with the rounding of BasicSR's function.

    Returns:
        The shape alpha, the scales of the negative and the positive side, and Gamma(2 / alpha) / Gamma(1 / alpha), each
        (N, blocks) float64. The scales are NaN, and alpha is the least, where values of one sign are missing.
    """
    values = values.flatten(2)
    positive, negative = values.clamp(min=0), values.clamp(max=0)
    size = (positive.sum(-1) - negative.sum(-1)).to(torch.float64)
    above, below = (part.square().sum(-1).to(torch.float64) for part in (positive, negative))
    right, left = (above / (values > 0).sum(-1)).sqrt(), (below / (values < 0).sum(-1)).sqrt()
    ratio = left / right
    moments = size.square() / values.shape[-1] / (above + below)
    moments = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    alphas, middles, scales, means = _shapes()
    index = torch.searchsorted(middles, moments).clamp(1, len(middles) - 1)
    apart = torch.minimum((moments - middles[index - 1]).abs(), (moments - middles[index]).abs())
    for image, block in (apart <= NEAR * moments).nonzero().tolist():
        moments[image, block] = _float32_moment_ratio(values[image, block].numpy())
    index = torch.searchsorted(middles, moments)  # of the nearest moment ratio
    index = torch.where(moments.isnan(), 0, index)
    return alphas[index], left * scales[index], right * scales[index], means[index]


def _float32_moment_ratio(values: NDArray[np.float32]) -> float:
    """Return the moment ratio that ``_fit`` searches in the table, (n,) values summed as NumPy sums float32."""
    left, right = (np.sqrt(np.mean(part**2)) for part in (values[values < 0], values[values > 0]))
    ratio = left / right
    plain = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    return float(plain * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2)


@cache
def _shapes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the table for the fit, by alpha in 0.2, 0.201, ... 10, float64.

    Returns:
        The alphas; the middles between the moment ratios Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)) of neighbouring alphas;
        sqrt(Gamma(1/a) / Gamma(3/a)); and Gamma(2/a) / Gamma(1/a).
    """
    alphas = 0.2 + 0.001 * torch.arange(9801, dtype=torch.float64)
    one, two, three = (torch.lgamma(times / alphas) for times in (1, 2, 3))
    ratios = torch.exp(2 * two - one - three)
    return alphas, (ratios[1:] + ratios[:-1]) / 2, torch.exp((one - three) / 2), torch.exp(two - one)


@cache
def _pristine() -> tuple[Tensor, Tensor]:
    """Return the mean (36,) and the covariance (36, 36) of pristine images' features, float64."""
    with np.load(Path(__file__).with_name("niqe_pristine.npz")) as file:
        return torch.from_numpy(file["mean"]), torch.from_numpy(file["covariance"])


def _distance(features: Tensor) -> Tensor:
    """Return the distance of the distribution of (N, blocks, 36) features from that of pristine images, (N,)."""
    mean, covariance = _pristine()
    whole = ~features.isnan().any(-1, keepdim=True)
    count = whole.sum(1, keepdim=True)
    kept = torch.where(whole, features, 0)
    centred = torch.where(whole, kept - kept.sum(1, keepdim=True) / count, 0)
    own = centred.mT @ centred / (count - 1).clamp(min=1)
    # The means, unlike the covariance, also take what is known of blocks that are flat in part.
    away = (features.nanmean(1) - mean)[:, None]
    inverse = torch.linalg.pinv((covariance + own) / 2, rtol=1e-15)
    squared = (away @ inverse @ away.mT).flatten()
    return torch.where(count.flatten() < 2, torch.nan, squared.sqrt())


def _luma(images: Tensor) -> Tensor:
    """Return ``fidelity.luma`` in BasicSR's steps: equal to the last bit, since it is rounded to levels."""
    weights = torch.tensor([[65.481, 128.553, 24.966]], dtype=torch.float64)
    shares = images.contiguous().to(torch.float32).div_(255).flatten(2).to(torch.float64)
    mixed = (weights @ shares).add_(16).div_(255).to(torch.float32).mul_(255)
    return mixed.unflatten(-1, images.shape[-2:])
