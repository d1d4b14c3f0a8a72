"""Build optimizers by their names in an option file, and compute learning rates."""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from gramgan_plugin.checkpoints.restore_optimizers import IMPLEMENTATION_FLAGS
from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import did_you_mean


def build_optimizer(name: str, params: Iterable[Any], **options: Any) -> Optimizer:
    """Build an optimizer of ``torch.optim`` by its class name, fused if torch supports that for the parameters.

    The fused implementation passes over the weights once, others several times; torch never chooses it by default.

    Args:
        name: class name.
        params: parameters, or groups of them.
        options: its arguments; one that chooses the implementation (``fused``, ``foreach``, ...) takes precedence.

    Raises:
        OptionError: if torch has no such optimizer.
    """
    cls = optimizer_class(name, "train.optim")
    given = list(params)
    if "fused" in inspect.signature(cls).parameters and not any(
        options.get(flag) is not None for flag in IMPLEMENTATION_FLAGS
    ):
        try:
            fused: Optimizer = cls(given, **options | {"fused": True})
            return fused
        except RuntimeError:  # not supported for this device or dtype
            pass
    optimizer: Optimizer = cls(given, **options)
    return optimizer


def optimizer_class(name: str, key: str) -> Any:
    """Return the optimizer class of ``torch.optim`` with a name.

    Raises:
        OptionError: if there is none; the message begins with ``key``, the path of the option.
    """
    known = {
        member: cls
        for member, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer
    }
    if name not in known:
        raise OptionError(f"{key}: torch has no optimizer '{name}'{did_you_mean(name, known)}")
    return known[name]


def check_warmup(warmup_iter: int, period: int) -> None:
    """Check the lengths of a schedule with warm-up.

    Raises:
        ValueError: if ``warmup_iter`` is not in [0, period).
    """
    if not 0 <= warmup_iter < period:
        raise ValueError(f"warmup_iter must be at least 0 and less than period ({period}), not {warmup_iter}")


def cosine_restart_rate(base: float, step: int, period: int, warmup_iter: int, eta_min: float) -> float:
    """Return the learning rate of cosine decay with restarts, each cycle beginning with a linear warm-up.

    Args:
        base: the peak.
        step: 0-based, the number of iterations before this one.
        period: iterations from one restart to the next.
        warmup_iter: iterations of warm-up in each cycle; 0 for none.
        eta_min: the floor that the cosine approaches.
    """
    t = step % period
    if t < warmup_iter:
        return base * (t + 1) / warmup_iter
    return eta_min + (base - eta_min) * (1 + math.cos(math.pi * (t - warmup_iter) / (period - warmup_iter))) / 2
