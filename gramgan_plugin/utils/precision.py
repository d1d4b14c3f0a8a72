"""Control the precision in which losses compute, whatever precision the networks use."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in one common dtype: float32, or float64 if any of them is float64.

    Args:
        tensors: any number of tensors, of any shapes and dtypes.

    Returns:
        The tensors in the same order; those that already have the dtype are not copied.

    Example:
        >>> import torch
        >>> [x.dtype for x in at_least_float32(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1))]
        [torch.float32, torch.float32]
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def autocast_off(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which autocast is off on ``device``."""
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # this torch has no autocast for the device
        return nullcontext()


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply and convolve float32 in float32, also where TF32 or bf16 is allowed (by torch itself for cuDNN).

    Where a run has allowed them by torch's newer options (``fp32_precision``), they stay allowed: these have no single
    value that could be restored afterwards.
    """
    try:
        allowed, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        yield
        return
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(allowed)
        torch.backends.cudnn.allow_tf32 = convolutions
