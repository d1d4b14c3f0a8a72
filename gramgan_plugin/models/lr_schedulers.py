"""Learning-rate schedules that neither BasicSR nor torch has."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class CosineRestartWarmupLR(LRScheduler):
    r"""Cosine decay with restarts, each cycle beginning with a linear warm-up.

    With :math:`t` = (iteration - 1) mod ``period``, :math:`w` = ``warmup_iter`` and :math:`b` the optimizer's lr:

    .. math::
        \mathrm{lr} = b\,\frac{t + 1}{w} \;\;(t < w), \qquad
        \mathrm{lr} = m + (b - m)\,\frac{1 + \cos(\pi (t - w) / (P - w))}{2} \;\;(t \ge w)

    where :math:`m` = ``eta_min`` and :math:`P` = ``period``. It repeats without end, so training may be prolonged.
    Cosine decay with a restart every 200k iterations and warm-up is the schedule of Song et al., Gram-GAN, Sensors
    2023, 23(4), 2098; the length of the warm-up, that it comes after restarts too, and the floor are decisions of
    this project.

    Args:
        optimizer: its groups' ``lr`` is the peak.
        period: iterations from one restart to the next.
        warmup_iter: iterations of warm-up in each cycle, less than ``period``; 0 for none.
        eta_min: the floor that the cosine approaches.
        last_epoch: as in torch; the number of steps taken, less one, when resuming by hand.

    Raises:
        ValueError: if ``warmup_iter`` is not in [0, period).

    >>> import torch
    >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-4)
    >>> schedule = CosineRestartWarmupLR(optimizer, period=200000, warmup_iter=2000, eta_min=1e-7)
    >>> f"{optimizer.param_groups[0]['lr']:.1e}"  # iteration 1
    '5.0e-08'
    """

    def __init__(
        self,
        optimizer: Optimizer,
        period: int,
        warmup_iter: int = 0,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup_iter < period:
            raise ValueError(f"warmup_iter must be at least 0 and less than period ({period}), not {warmup_iter}")
        self.period = int(period)
        self.warmup_iter = int(warmup_iter)
        self.eta_min = float(eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The learning rate of each parameter group at the current step."""
        t = self.last_epoch % self.period
        if t < self.warmup_iter:
            return [base * (t + 1) / self.warmup_iter for base in self.base_lrs]  # type: ignore[misc]
        share = (1 + math.cos(math.pi * (t - self.warmup_iter) / (self.period - self.warmup_iter))) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]  # type: ignore[misc]
