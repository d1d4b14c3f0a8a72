"""What keeps D from winning early: noise on the images that it sees, and a penalty on its gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gramgan_plugin.functional.candidates import random_draw
from gramgan_plugin.functional.noise import sample_noise
from gramgan_plugin.losses.gradient_penalty import GradientPenalty
from gramgan_plugin.steps.step_state import Batch

# What tells the random numbers apart that are drawn for one sample in one iteration.
SHARE, NOISE_GT, NOISE_SR = 1, 2, 3


@dataclass(frozen=True)
class InstanceNoise:
    """Gaussian noise on SR and GT before D sees them, which fades (Sonderby et al. 2017).

    Attributes:
        sigma: its standard deviation at the start, for images in [0, 1].
        until: the iteration in which it has faded to 0, linearly.

    Raises:
        ValueError: if sigma is negative or until is below 1.
    """

    sigma: float
    until: int

    def __post_init__(self) -> None:
        if self.sigma < 0 or self.until < 1:
            raise ValueError(f"sigma must not be negative and until at least 1, got {self.sigma} and {self.until}")

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return noise for GT and for SR, (N, C, H, W) each, or None once it has faded."""
        now = self.sigma * (1 - batch.iteration / self.until)
        if now <= 0:
            return None
        like = torch.empty_like(batch.gt, dtype=torch.float32)
        seeds = [(batch.manual_seed, batch.iteration, use) for use in (NOISE_GT, NOISE_SR)]
        gt, sr = (sample_noise(like, seed, batch.first_index, batch.stride).mul_(now) for seed in seeds)
        return gt, sr


def penalty_of(penalty: GradientPenalty, net_d: nn.Module, batch: Batch, gt: Tensor, sr: Tensor) -> Tensor:
    """Return the penalty on D's gradient for a batch, with its random numbers.

    Args:
        penalty: the loss.
        net_d: D.
        batch: says where the samples stand.
        gt: (N, C, H, W), as D sees it.
        sr: the same of SR.
    """
    seed = (batch.manual_seed, batch.iteration, SHARE)
    share = random_draw(len(gt), 1, seed, batch.first_index, batch.stride)[:, 0]
    value: Tensor = penalty(net_d, gt, sr, share.to(gt.device, non_blocking=True))
    return value
