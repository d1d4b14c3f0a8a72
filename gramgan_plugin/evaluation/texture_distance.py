"""Distances of textures that need no weights: local Gram matrices, and patches, compared as distributions.

Both ask whether SR's textures are those of GT and not whether each detail is at its place. Their unit is relative: 0 if
the distributions are equal, about 1 if SR has no detail at all, more if it has far too much.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gramgan_plugin.evaluation.metric_inputs import cropped_pair

SCALES = 3  # 1, 1/2, 1/4
WINDOW, WINDOW_STRIDE = 8, 4  # pixels, at each scale
PATCH = 7  # pixels
DIRECTIONS = 64  # on which patches are projected
MOST_PATCHES = 2**14  # of an image at one scale
FLAT = 0.5  # levels: detail below this is the rounding's
GRAM_LEAST_SIDE = 4 * (WINDOW + 2)
SWD_LEAST_SIDE = 32


def texture_distance(sr: Tensor, gt: Tensor, crop: int = 0) -> Tensor:
    """Return the distance of the distributions of local Gram matrices, over three scales.

    At the scales 1, 1/2 and 1/4 (means over 2x2 pixels), nine maps are made: the horizontal and the vertical central
    difference and the Laplacian (mean of the four neighbours, less the pixel) of R, G and B. In windows of 8x8 pixels,
    4 apart, their 9x9 Gram matrix is the mean of the products of two maps: the strength of detail in each direction and
    colour, and how they go together. Of each of the 45 different entries the signed square root is taken, which is in
    levels. The Wasserstein-1 distance between its values in SR's windows and in GT's is the mean absolute difference of
    the two sorted lists. A scale's distance is the mean over entries, divided by GT's mean absolute value + 0.5 levels,
    and the result is the mean over scales.

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape.
        crop: pixels left out at each border; at least 40 must remain of each side.

    Returns:
        (N,) float64, at least 0; 0 for equal images, lower is better.

    Raises:
        ValueError: for other tensors or too small images.
    """
    a, b = (image.double() for image in cropped_pair(sr, gt, crop, GRAM_LEAST_SIDE))
    distances = []
    for scale in range(SCALES):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        distances.append(_relative_wasserstein(_local_gram(a), _local_gram(b)))
    return torch.stack(distances).mean(dim=0)


def patch_swd(sr: Tensor, gt: Tensor, crop: int = 0, seed: int = 0) -> Tensor:
    """Return the sliced Wasserstein distance between the distributions of 7x7 patches, over three scales.

    The scales are the three finest bands of a Laplacian pyramid: an image less its bilinear enlargement from means over
    2x2 pixels. Patches of 7x7 pixels in RGB are projected on 64 random directions of length 1. On each, the
    Wasserstein-1 distance is the mean absolute difference of the sorted projections. A scale's distance is the mean
    over directions, divided by the mean absolute value of GT's projections + 0.5 levels, and the result is the mean
    over scales. Low frequencies are left out: a change of brightness or colour of the whole image counts little.

    Up to 2^14 patches on a regular grid are compared. Up to 7 pixels at the lower and right border are cut off, so that
    the sides are multiples of 8.

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape.
        crop: pixels left out at each border; at least 32 must remain of each side.
        seed: of the directions; the result depends on nothing else that is random.

    Returns:
        (N,) float64, at least 0; 0 for equal images, lower is better.

    Raises:
        ValueError: for other tensors or too small images.
    """
    a, b = (image.double() for image in cropped_pair(sr, gt, crop, SWD_LEAST_SIDE))
    height, width = (side - side % 2**SCALES for side in a.shape[-2:])
    directions = torch.randn(DIRECTIONS, 3 * PATCH**2, generator=torch.Generator().manual_seed(seed), dtype=a.dtype)
    directions = F.normalize(directions).to(a.device)
    distances = [
        _relative_wasserstein(_projections(band_a, directions), _projections(band_b, directions))
        for band_a, band_b in zip(
            _laplacian_bands(a[..., :height, :width]), _laplacian_bands(b[..., :height, :width]), strict=True
        )
    ]
    return torch.stack(distances).mean(dim=0)


def _local_gram(image: Tensor) -> Tensor:
    """Return signed square roots of the entries of the Gram matrices in windows: (N, 45, windows)."""
    centre = image[..., 1:-1, 1:-1]
    left, right = image[..., 1:-1, :-2], image[..., 1:-1, 2:]
    upper, lower = image[..., :-2, 1:-1], image[..., 2:, 1:-1]
    maps = torch.cat([(right - left) / 2, (lower - upper) / 2, (left + right + upper + lower) / 4 - centre], dim=1)
    # Row by row of the matrix, since all products of a large image at once would need much memory.
    rows = [F.avg_pool2d(maps[:, i : i + 1] * maps[:, i:], WINDOW, WINDOW_STRIDE) for i in range(maps.shape[1])]
    gram = torch.cat(rows, dim=1).flatten(2)
    return gram.sign() * gram.abs().sqrt()


def _laplacian_bands(image: Tensor) -> list[Tensor]:
    """Return the three finest bands of (N, 3, H, W), whose sides are multiples of 8."""
    bands = []
    for _ in range(SCALES):
        coarse = F.avg_pool2d(image, 2)
        bands.append(image - F.interpolate(coarse, scale_factor=2, mode="bilinear"))
        image = coarse
    return bands


def _projections(band: Tensor, directions: Tensor) -> Tensor:
    """Return the patches of a band, projected: (N, directions, patches)."""
    stride = math.ceil(math.sqrt(band.shape[-2] * band.shape[-1] / MOST_PATCHES))
    return directions @ F.unfold(band, PATCH, stride=stride)


def _relative_wasserstein(sr: Tensor, gt: Tensor) -> Tensor:
    """Return the mean Wasserstein-1 distance of K distributions, as a fraction of GT's mean absolute value.

    Args:
        sr: (N, K, samples).
        gt: the same shape.

    Returns:
        (N,).
    """
    distance = (sr.sort(dim=-1).values - gt.sort(dim=-1).values).abs().mean(dim=(1, 2))
    return distance / (gt.abs().mean(dim=(1, 2)) + FLAT)
