"""Check and crop the images that metrics compare."""

import torch
from torch import Tensor


def check_images(name: str, images: Tensor) -> None:
    """Check that a tensor holds 8-bit RGB images.

    Args:
        name: what the error calls it.
        images: (N, 3, H, W) uint8.

    Raises:
        ValueError: one line, if it is anything else or holds no pixel.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        dtype = str(images.dtype).removeprefix("torch.")
        raise ValueError(f"{name}: expected uint8 RGB (N, 3, H, W), got {dtype} {tuple(images.shape)}")


def cropped_pair(sr: Tensor, gt: Tensor, crop: int, least_side: int = 1) -> tuple[Tensor, Tensor]:
    """Return two batches of images without their borders.

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape, on the same device.
        crop: pixels left out at each border.
        least_side: pixels that each side must have left.

    Returns:
        Views of (N, 3, H - 2 * crop, W - 2 * crop).

    Raises:
        ValueError: one line, for other tensors or too small images.
    """
    check_images("sr", sr)
    check_images("gt", gt)
    if sr.shape != gt.shape:
        raise ValueError(f"sr and gt: expected one shape, got {tuple(sr.shape)} and {tuple(gt.shape)}")
    if sr.device != gt.device:
        raise ValueError(f"sr and gt: expected one device, got {sr.device} and {gt.device}")
    return without_border(sr, crop, least_side), without_border(gt, crop, least_side)


def without_border(images: Tensor, crop: int, least_side: int = 1) -> Tensor:
    """Return images without ``crop`` pixels at each border.

    Raises:
        ValueError: if ``crop`` is negative, or a side has less than ``least_side`` pixels left.
    """
    height, width = images.shape[-2:]
    if crop < 0:
        raise ValueError(f"crop: expected at least 0 pixels, got {crop}")
    if min(height, width) - 2 * crop < least_side:
        raise ValueError(
            f"{width}x{height} pixels without {crop} at each border: too small, each side needs at least {least_side}"
        )
    return images[..., crop : height - crop, crop : width - crop]
