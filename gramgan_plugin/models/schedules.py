"""Find learning-rate schedules by their names in an option file."""

from collections.abc import Mapping
from typing import Any

import torch
from basicsr.models import lr_scheduler as basicsr_schedulers
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gramgan_plugin.building.optimizers import check_warmup, cosine_restart_rate
from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import did_you_mean


def scheduler_class(name: str) -> Any:
    """Return the class of a learning-rate schedule, by the name it has in an option file.

    Raises:
        OptionError: if there is none of that name.
    """
    known = known_schedulers()
    if name not in known:
        raise OptionError(f"train.scheduler.type: no schedule named '{name}'{did_you_mean(name, known)}")
    return known[name]


def known_schedulers() -> Mapping[str, Any]:
    """Return the learning-rate schedules that an option file can name: ours, BasicSR's and torch's."""
    torch_schedulers = {
        key: cls
        for key, cls in vars(torch.optim.lr_scheduler).items()
        if isinstance(cls, type) and issubclass(cls, torch.optim.lr_scheduler.LRScheduler) and not key.startswith("_")
    }
    return torch_schedulers | {
        # Upstream uses its restartable version under both names.
        "MultiStepLR": basicsr_schedulers.MultiStepRestartLR,
        "MultiStepRestartLR": basicsr_schedulers.MultiStepRestartLR,
        "CosineAnnealingRestartLR": basicsr_schedulers.CosineAnnealingRestartLR,
        "CosineRestartWarmupLR": CosineRestartWarmupLR,
    }


class CosineRestartWarmupLR(LRScheduler):
    r"""Cosine decay with restarts, each cycle beginning with a linear warm-up.

    With :math:`t` = (iteration - 1) mod ``period``, :math:`w` = ``warmup_iter`` and :math:`b` the optimizer's lr:

    .. math::
        \mathrm{lr} = b\,\frac{t + 1}{w} \;\;(t < w), \qquad
        \mathrm{lr} = m + (b - m)\,\frac{1 + \cos(\pi (t - w) / (P - w))}{2} \;\;(t \ge w)

    where :math:`m` = ``eta_min`` and :math:`P` = ``period``. It repeats without end, so that training can be
    extended.
    Cosine decay with a restart every 200k iterations and warm-up is the schedule of Song et al., Gram-GAN, Sensors
    2023, 23(4), 2098; the length of the warm-up, the warm-up after restarts, and the floor are decisions of this
    project.

    Args:
        optimizer: its groups' ``lr`` is the peak.
        period: iterations from one restart to the next.
        warmup_iter: iterations of warm-up in each cycle, less than ``period``; 0 for none.
        eta_min: the floor that the cosine approaches.
        last_epoch: as in torch; the number of steps taken, minus one, when resuming by hand.

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
        check_warmup(warmup_iter, period)
        self.period = int(period)
        self.warmup_iter = int(warmup_iter)
        self.eta_min = float(eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the learning rate of each parameter group at the current step."""
        settings = (self.period, self.warmup_iter, self.eta_min)
        return [cosine_restart_rate(base, self.last_epoch, *settings) for base in self.base_lrs]  # type: ignore[arg-type]
