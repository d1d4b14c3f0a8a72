"""The focal frequency loss: differences of spectra, in which the worst frequencies count most."""

import torch
from torch import Tensor, nn

from gramgan_plugin.utils.precision import at_least_float32, autocast_off


class FocalFrequencyLoss(nn.Module):
    """mean ``w |F(SR) - F(GT)|^2`` over the frequencies of each channel (Jiang et al., ICCV 2021).

    F is the orthonormal 2-D Fourier transform, and ``w = |F(SR) - F(GT)|^alpha`` divided by its largest value in each
    channel, a constant.

    Args:
        loss_weight: multiplies the result.
        alpha: how much large differences count; 0 for equal weights, which is the mean squared error.

    Raises:
        ValueError: if ``alpha`` is negative.

    Example:
        >>> loss = FocalFrequencyLoss(alpha=0.0)
        >>> float(loss(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)))
        0.25
    """

    form = "image"

    def __init__(self, loss_weight: float = 1.0, alpha: float = 1.0) -> None:
        super().__init__()
        if alpha < 0:
            raise ValueError(f"alpha: must not be negative, got {alpha}")
        self.loss_weight = loss_weight
        self.alpha = alpha

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the weighted loss of SR and GT, (N, C, H, W) in [0, 1]: a scalar in at least float32."""
        sr, gt = at_least_float32(sr, gt)
        with autocast_off(sr.device):
            spectrum = torch.fft.fft2(sr - gt, norm="ortho")  # the transform is linear
            squared = spectrum.real.square() + spectrum.imag.square()
        weight = squared.detach() ** (self.alpha / 2)
        weight = weight / weight.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return self.loss_weight * (weight * squared).mean()
