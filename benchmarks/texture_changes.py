"""Change a photo for texture_study.py: towards its bicubic enlargement, blurred, noisy, shifted, and others."""

import torch
from texture_descent import bicubic_enlarged
from torch import Tensor
from torch.nn import functional as F

AMPLITUDES = (0.002, 0.005, 0.01, 0.02, 0.05)  # root mean square of the change of GT, for a range of 1
SHIFTS = (1, 2, 4, 8)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Return (1, 3, H, W) with Gaussian blur, reflected at the border."""
    radius = max(1, round(4 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), mode="reflect"), kernel, groups=3)
    return F.conv2d(F.pad(image, (0, 0, radius, radius), mode="reflect"), kernel.transpose(2, 3), groups=3)


def noise(image: Tensor, seed: int = 0) -> Tensor:
    """Return white noise of deviation 1 in an image's shape."""
    return torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))


def mixtures(gt: Tensor) -> dict[str, Tensor]:
    """Return images from the bicubic enlargement, t = 0, to GT, t = 1."""
    sr = bicubic_enlarged(gt)
    return {f"{t:g}": (1 - t) * sr + t * gt for t in (0, 0.25, 0.5, 0.75, 0.9, 1)}


def blurs(gt: Tensor) -> dict[str, Tensor]:
    """Return GT with increasing blur."""
    return {f"{sigma:g}": blurred(gt, sigma) if sigma else gt for sigma in (0, 0.5, 1, 1.5, 2, 3)}


def noises(gt: Tensor) -> dict[str, Tensor]:
    """Return GT with increasing noise."""
    return {f"{level:g}": gt + level * noise(gt) for level in (0, *AMPLITUDES)}


def shifts(gt: Tensor) -> dict[str, Tensor]:
    """Return GT shifted to the right by whole pixels."""
    return {f"{pixels}": torch.roll(gt, pixels, dims=3) for pixels in SHIFTS}


def directions(gt: Tensor) -> dict[str, Tensor]:
    """Return changes of GT, each of root mean square 1."""
    sr, unit = bicubic_enlarged(gt), torch.ones_like(gt)
    changes = {
        "towards bicubic": sr - gt,
        "away from bicubic": gt - sr,
        "sharpened": gt - blurred(gt, 1),
        "a pixel to the right": torch.roll(gt, 1, dims=3) - gt,
        "pixels of a patch exchanged": shuffled(gt) - gt,
        "white noise": noise(gt, 1),
        "white noise, another": noise(gt, 2),
        "coarse noise": blurred(noise(gt, 3), 3),
        "coarse noise, another": blurred(noise(gt, 4), 3),
        "more contrast": gt - gt.mean(),
        "less contrast": gt.mean() - gt,
        "brighter": unit,
        "darker": -unit,
        "redder": unit * torch.tensor([1.0, 0.0, 0.0])[None, :, None, None],
    }
    return {name: change / change.square().mean().sqrt() for name, change in changes.items()}


def shuffled(image: Tensor, seed: int = 0) -> Tensor:
    """Shuffle the pixels of each 4x4 patch, which keeps the Gram matrices."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    patches = F.unfold(image, 4, stride=4).unflatten(1, (3, 16))[:, :, order]
    return F.fold(patches.flatten(1, 2), image.shape[2:], 4, stride=4)
