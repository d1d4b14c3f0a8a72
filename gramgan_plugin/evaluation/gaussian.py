"""Filter images by a Gaussian: what SSIM and NIQE share."""

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from gramgan_plugin.utils.precision import full_float32


def gaussian_filter(images: Tensor, radius: int, sigma: float) -> Tensor:
    """Return the means in Gaussian windows that lie within the image, g = exp(-d^2 / (2 sigma^2)) with the sum 1.

    On a CPU OpenCV filters: torch's convolution of single channels is slow there.

    Args:
        images: (..., H, W) float32 or float64; both sides are at least 2 ``radius`` + 1.
        radius: the window has 2 ``radius`` + 1 pixels a side.
        sigma: standard deviation in pixels.

    Returns:
        (..., H - 2 radius, W - 2 radius) of the same type.

    Example:
        >>> gaussian_filter(torch.full((2, 8, 9), 3.0), 3, 1.5).shape
        torch.Size([2, 2, 3])
    """
    distances = torch.arange(-radius, radius + 1, dtype=torch.float64, device=images.device)
    window = torch.exp(-distances.square() / (2 * sigma**2))
    window /= window.sum()
    planes = images.flatten(0, -3)
    if planes.device.type != "cpu":
        window = window.to(images.dtype)
        with full_float32():
            rows = F.conv2d(planes[:, None], window.view(1, 1, -1, 1))
            filtered = F.conv2d(rows, window.view(1, 1, 1, -1))
        return filtered.view(*images.shape[:-2], *_inside(images, radius))
    filtered = torch.empty_like(planes, memory_format=torch.contiguous_format)
    sources, results, weights = planes.contiguous().numpy(), filtered.numpy(), window.numpy()
    for source, result in zip(sources, results, strict=True):
        cv2.sepFilter2D(source, -1, weights, weights, dst=result)
    return filtered.view(images.shape)[..., radius : images.shape[-2] - radius, radius : images.shape[-1] - radius]


def _inside(images: Tensor, radius: int) -> tuple[int, int]:
    return images.shape[-2] - 2 * radius, images.shape[-1] - 2 * radius
