"""A loss on the details of images at several scales, by Haar's wavelet."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gramgan_plugin.utils.precision import at_least_float32, autocast_off

# Haar's filters of 2x2 pixels: the mean, and the differences across columns, across rows and across diagonals.
FILTERS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
MOST_LEVELS = 10


class WaveletLoss(nn.Module):
    """The mean absolute difference of SR's and GT's wavelet details, the mean over the levels.

    The transform is not subsampled: at level k the four pixels that a filter reads are 2^(k-1) apart, and each place
    has its details; the mean that the next level begins with is that of the four pixels. Places whose pixels are not
    all in the image are left out. Colours and flat brightness do not count: use it beside a content loss.

    Args:
        loss_weight: multiplies the result.
        levels: how many, from 1 to 10; an image needs sides of at least 2^levels pixels.

    Raises:
        ValueError: for another number of levels.

    Example:
        >>> sr, gt = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> sr[..., ::2] = 0.5  # stripes: one of the three differences sees them
        >>> round(float(WaveletLoss(levels=1)(sr, gt)), 4)
        0.0833
    """

    form = "image"
    filters: Tensor

    def __init__(self, loss_weight: float = 1.0, levels: int = 2) -> None:
        super().__init__()
        if not 1 <= levels <= MOST_LEVELS:
            raise ValueError(f"levels: must be from 1 to {MOST_LEVELS}, got {levels:g}")
        self.loss_weight = loss_weight
        self.levels = levels
        filters = torch.tensor(FILTERS, dtype=torch.float64).view(4, 1, 2, 2) / 4
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the weighted loss of SR and GT, (N, C, H, W) in [0, 1]: a scalar in at least float32.

        Raises:
            ValueError: if the shapes differ, or a side is too short for the levels.
        """
        least = 2**self.levels
        if sr.shape != gt.shape or sr.dim() != 4 or min(sr.shape[-2:]) < least:
            shapes = f"{tuple(sr.shape)} and {tuple(gt.shape)}"
            raise ValueError(f"expected sr and gt of one shape (N, C, H, W), sides of at least {least}, got {shapes}")
        sr, gt = at_least_float32(sr, gt)
        mean = (sr - gt).flatten(0, 1).unsqueeze(1)  # the transform is linear; (N C, 1, H, W)
        levels = []
        with autocast_off(sr.device):
            for level in range(self.levels):
                bands = F.conv2d(mean, self.filters.to(mean.dtype), dilation=2**level)  # (N C, 4, h, w)
                mean, details = bands[:, :1], bands[:, 1:]
                levels.append(details.abs().mean())
        return self.loss_weight * torch.stack(levels).mean()
