"""Weights of the terms of G's loss that follow from their values."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class SoftmaxBalance:
    """Weights that are the softmax of the terms' values: the largest counts most (SuRGe, arXiv 2404.06294).

    Args:
        temperature: divides the values; small ones leave the largest term alone.
        detach: whether the weights are constants.

    Raises:
        ValueError: if the temperature is not above 0.

    Example:
        >>> SoftmaxBalance(temperature=1.0)(torch.tensor([0.0, 0.0]))
        tensor([0.5000, 0.5000])
    """

    def __init__(self, temperature: float = 0.1, detach: bool = True) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: must be above 0, got {temperature}")
        self.temperature = temperature
        self.detach = detach

    def __call__(self, values: Tensor) -> Tensor:
        """Return the weights (n,) of the terms' values (n,), which sum to 1."""
        return torch.softmax((values.detach() if self.detach else values) / self.temperature, dim=0)


BALANCES = {"softmax": SoftmaxBalance}


def build_balance(options: Mapping[str, Any]) -> SoftmaxBalance:
    """Return what ``train.balance`` describes: ``type`` and its arguments.

    Raises:
        ValueError: for an unknown type, or another argument or value.
    """
    arguments = dict(options)
    name = arguments.pop("type", "softmax")
    if name not in BALANCES:
        raise ValueError(f"type: expected one of {', '.join(BALANCES)}, got {name!r}")
    try:
        return BALANCES[name](**arguments)
    except TypeError as error:
        raise ValueError(str(error).partition("() ")[2]) from error
