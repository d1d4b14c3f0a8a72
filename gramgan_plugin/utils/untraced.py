"""Functions that torch.compile does not trace."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Keep a function out of compiled graphs: one whose control flow depends on data, or on other things than tensors.

    `torch.compiler.disable` itself would import the compiler (a second and more) into runs that compile nothing.
    """

    @functools.wraps(function)
    def outer(*args: P.args, **kwargs: P.kwargs) -> R:
        if hasattr(torch.compiler, "is_compiling") and torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return outer
