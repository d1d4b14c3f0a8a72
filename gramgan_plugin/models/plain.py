"""Values in the types that a weights-only load reads."""

from collections.abc import Mapping
from typing import Any

import torch


def plain(value: Any) -> Any:
    """Return ``value`` in tensors, numbers, strings, and lists and dicts of them.

    Raises:
        TypeError: if it holds anything else.
    """
    if isinstance(value, Mapping):  # a Counter, too
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot stand in a training state")
