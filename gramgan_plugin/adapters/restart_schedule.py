"""The learning-rate schedule of Gram-GAN as an MMEngine parameter scheduler."""

from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from gramgan_plugin.building.optimizers import check_warmup, cosine_restart_rate


class CosineRestartWarmupLR(LRSchedulerMixin, _ParamScheduler):
    """Cosine decay with restarts, each cycle beginning with a linear warm-up; `models.schedules` has the formula.

    Args:
        optimizer: an optimizer or its wrapper; its groups' ``lr`` is the peak.
        period: iterations from one restart to the next.
        warmup_iter: iterations of warm-up in each cycle, less than ``period``; 0 for none.
        eta_min: the floor that the cosine approaches.
        by_epoch: must be false: it counts iterations.
        others: of MMEngine's schedulers: ``begin``, ``end``, ``last_step``, ``verbose``.

    Raises:
        ValueError: if ``warmup_iter`` is not in [0, period), or ``by_epoch`` is true.
    """

    def __init__(
        self,
        optimizer: Any,
        period: int,
        warmup_iter: int = 0,
        eta_min: float = 0.0,
        by_epoch: bool = False,
        **others: Any,
    ) -> None:
        check_warmup(warmup_iter, period)
        if by_epoch:
            raise ValueError("by_epoch: this schedule counts iterations; set it to False")
        self.period, self.warmup_iter, self.eta_min = int(period), int(warmup_iter), float(eta_min)
        super().__init__(optimizer, by_epoch=False, **others)

    def _get_value(self) -> list[float]:
        settings = (self.period, self.warmup_iter, self.eta_min)
        return [cosine_restart_rate(base, self.last_step, *settings) for base in self.base_values]
