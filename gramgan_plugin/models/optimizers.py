"""Optimizers and learning-rate schedules by the names that they have in an option file."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from basicsr.models import lr_scheduler as basicsr_schedulers
from torch.optim import Optimizer

from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.lr_schedulers import CosineRestartWarmupLR
from gramgan_plugin.registration import did_you_mean

# Which of its ways of computing an optimizer takes is torch's business unless an option says otherwise.
WAYS = ("fused", "foreach", "capturable", "differentiable")
# Schedules that set the rate by an option of their own, not by the optimizer's lr: their names -> that option.
OWN_RATES = {"OneCycleLR": "max_lr", "CyclicLR": "max_lr"}


def build_optimizer(name: str, params: Iterable[Any], **options: Any) -> Optimizer:
    """An optimizer of ``torch.optim`` by its class name, fused where torch has that for its parameters' device.

    Torch by itself takes the fused form never; it is one pass over the weights where others take several.

    Args:
        name: class name.
        params: parameters, or groups of them.
        options: its arguments; where one of them chooses the way of computing (``fused``, ``foreach``, ...), that
            counts.

    Raises:
        OptionError: if torch has no such optimizer.
    """
    cls = optimizer_class(name, "train.optim")
    given = list(params)
    if "fused" in inspect.signature(cls).parameters and not any(options.get(way) is not None for way in WAYS):
        try:
            fused: Optimizer = cls(given, **options, fused=True)
            return fused
        except RuntimeError:  # not for this device or type of weights
            pass
    optimizer: Optimizer = cls(given, **options)
    return optimizer


def optimizer_class(name: str, key: str) -> Any:
    """The optimizer of ``torch.optim`` of a name.

    Raises:
        OptionError: if there is none; it begins with ``key``, where the name stands.
    """
    known = {
        member: cls
        for member, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
    }
    if name not in known:
        raise OptionError(f"{key}: torch has no optimizer '{name}'{did_you_mean(name, known)}")
    return known[name]


def scheduler_class(name: str) -> Any:
    """The class of a learning-rate schedule, by the name it has in an option file.

    Raises:
        OptionError: if there is none of that name.
    """
    known = known_schedulers()
    if name not in known:
        raise OptionError(f"train.scheduler.type: no schedule named '{name}'{did_you_mean(name, known)}")
    return known[name]


def known_schedulers() -> Mapping[str, Any]:
    """The classes of learning-rate schedules that an option file can name: ours, BasicSR's and torch's."""
    torch_schedulers = {
        key: cls
        for key, cls in vars(torch.optim.lr_scheduler).items()
        if isinstance(cls, type) and issubclass(cls, torch.optim.lr_scheduler.LRScheduler) and not key.startswith("_")
    }
    return torch_schedulers | {
        # Upstream trains with its restartable version under both names.
        "MultiStepLR": basicsr_schedulers.MultiStepRestartLR,
        "MultiStepRestartLR": basicsr_schedulers.MultiStepRestartLR,
        "CosineAnnealingRestartLR": basicsr_schedulers.CosineAnnealingRestartLR,
        "CosineRestartWarmupLR": CosineRestartWarmupLR,
    }
