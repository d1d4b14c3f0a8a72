"""Tensors of a few constant numbers, moved to each device once: moving from pageable memory waits for a GPU."""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor (n,) of constants; it is shared, so nothing may write to it.

    Example:
        >>> constant((1, 2), torch.long, torch.device("cpu"))
        tensor([1, 2])
    """
    with torch.inference_mode(False):  # its tensors could not be saved for a backward pass later
        return torch.tensor(values, dtype=dtype, device=device)


def unit_range(levels: Tensor) -> Tensor:
    """Return levels / 255 in float32, with equal bits on every device.

    The divisor is a tensor: by a number CUDA multiplies with the rounded reciprocal.

    Example:
        >>> unit_range(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    return levels.float().div_(torch.full((), 255.0, device=levels.device))
