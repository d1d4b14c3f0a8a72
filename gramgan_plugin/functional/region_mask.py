"""Find textured regions: the local standard deviation of luma, and the mask from it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.functional.patches import check_image, split_patches
from gramgan_plugin.utils.devices import finest_dtype
from gramgan_plugin.utils.precision import at_least_float32, autocast_off

LUMA_WEIGHTS = (0.2989, 0.587, 0.114)


def luma(image: Tensor) -> Tensor:
    """Return luma of RGB, else the mean of the channels: (N, C, H, W) -> (N, 1, H, W) in at least float32."""
    check_image(image)
    (image,) = at_least_float32(image)
    if image.shape[1] != 3:
        return image.mean(dim=1, keepdim=True)
    red, green, blue = image.split(1, dim=1)
    return LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue


def region_std(image: Tensor, window: int, stride: int) -> Tensor:
    """Return the unbiased standard deviation of luma in square windows.

    Args:
        image: (N, C, H, W) in [0, 1].
        window: side of the window in pixels, at least 2.
        stride: ``window`` for non-overlapping blocks (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098, as
            this project reads it), 1 for a window around each pixel, with the image reflected at its borders
            (as Beby-GAN does; an even window reaches one pixel further up and left).

    Returns:
        (N, 1, H / window, W / window) for blocks, (N, 1, H, W) for stride 1; in the units of ``image``.

    Raises:
        ValueError: if ``image`` is not 4-D, ``window`` is below 2, ``stride`` is neither ``window`` nor 1,
            the sides are not multiples of ``window`` (blocks), or the window is too large to be reflected
            (stride 1).

    Example:
        >>> import torch
        >>> region_std(torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]), window=2, stride=2)
        tensor([[[[0.5774]]]])
    """
    check_image(image)
    if window < 2:
        raise ValueError(f"window must be at least 2, got {window}")
    if stride not in (1, window):
        raise ValueError(f"stride must be 1 or the window ({window}), got {stride}")
    y = luma(image)
    with autocast_off(y.device):
        return _dense_std(y, window) if stride == 1 else _block_std(y, window)


def _block_std(y: Tensor, window: int) -> Tensor:
    if y.shape[2] % window or y.shape[3] % window:
        raise ValueError(
            f"an image of {y.shape[2]}x{y.shape[3]} px cannot be cut into whole windows of {window} px; "
            f"choose a crop size that is a multiple of the window"
        )
    blocks = split_patches(y, window)  # (N, 1, h, p, w, p)
    # Not E[x^2] - E[x]^2: on flat bright blocks, float32 makes it negative or larger than a small threshold.
    deviation = blocks - blocks.mean(dim=(3, 5), keepdim=True)
    return (deviation.square().sum(dim=(3, 5)) / (window**2 - 1)).sqrt()


def _dense_std(y: Tensor, window: int) -> Tensor:
    before, after = window // 2, (window - 1) // 2
    if before >= min(y.shape[2:]):
        raise ValueError(f"an image of {y.shape[2]}x{y.shape[3]} px is too small for a window of {window} px")
    # E[x^2] - E[x]^2 with box filters needs no unfolding (121 copies for a window of 11). It cancels, but in
    # float64 and for values of at most 1 the error is about 1e-16 of variance: 1e-8 of standard deviation.
    padded = F.pad(y.to(finest_dtype(y.device.type)), (before, after, before, after), mode="reflect")
    mean = _box(padded, window)
    variance = (_box(padded.square(), window) - mean.square()).clamp_min(0)
    return (variance * (window**2 / (window**2 - 1))).sqrt().to(y.dtype)


def _box(y: Tensor, window: int) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(y, (window, 1), stride=1), (1, window), stride=1)


@torch.no_grad()
def region_mask(image: Tensor, window: int, stride: int, threshold: float) -> Tensor:
    """Return 1 where the local standard deviation of luma is at least ``threshold``, else 0.

    Args:
        image: (N, C, H, W) in [0, 1].
        window: side of the window in pixels.
        stride: ``window`` (blocks) or 1, see `region_std`.
        threshold: in the units of ``image``.

    Returns:
        (N, 1, H, W) of 0 and 1 in the dtype of ``image``.

    Raises:
        ValueError: see `region_std`.
    """
    keep = (region_std(image, window, stride) >= threshold).to(image.dtype)
    if stride == 1:
        return keep
    return keep.repeat_interleave(window, dim=2).repeat_interleave(window, dim=3)
