"""Keep functions out of graphs compiled by torch.compile."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """Keep a function with data-dependent control flow, or with inputs other than tensors, out of compiled graphs.

    `torch.compiler.disable` would import the compiler (over a second), also in runs that compile nothing.
    """

    @functools.wraps(function)
    def outer(*args: P.args, **kwargs: P.kwargs) -> R:
        if hasattr(torch.compiler, "is_compiling") and torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return outer
