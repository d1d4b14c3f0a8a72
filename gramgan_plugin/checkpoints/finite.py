"""Find non-finite values, and refuse to save them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, bfloat16, float16, float32, float64, isfinite

from gramgan_plugin.errors import TrainingStopped


def refuse_non_finite(content: Any, path: Path) -> None:
    """Raise an error if a tensor holds a non-finite value.

    Args:
        content: tensors in nested dicts and lists. Plain numbers are not checked: a schedule may hold an infinite one.
        path: the file, for the message.

    Raises:
        TrainingStopped: naming the first such tensor.
    """
    bad = first_non_finite(content)
    if bad is not None:
        raise TrainingStopped(
            f"{path}: not written, since {bad} holds values that are not finite; the checkpoints before it are as they "
            "were: resume from the newest with --auto_resume and a lower learning rate, or train.clip_grad_norm_g"
        )


def first_non_finite(value: Any, name: str = "") -> str | None:
    """Return the path to the first non-finite tensor in nested dicts and lists, or None.

    >>> import torch
    >>> first_non_finite({"params": {"a": torch.ones(2), "b": [torch.tensor([1.0, float("nan")])]}})
    'params.b.0'
    """
    if isinstance(value, Tensor):
        finite = value.dtype not in (float16, bfloat16, float32, float64) or bool(isfinite(value).all())
        return None if finite else name
    members: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        members = value.items()
    elif isinstance(value, list | tuple):
        members = enumerate(value)
    found = (first_non_finite(member, f"{name}.{key}" if name else str(key)) for key, member in members)
    return next((one for one in found if one is not None), None)
