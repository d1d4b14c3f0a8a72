"""Set the precision of the forward passes: float32, or mixed precision by autocast."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.devices import autocasts

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = (*DTYPES, "auto")


class Precision:
    """The precision of the forward passes: autocast's type, and the gradient scaler that fp16 needs.

    Weights, optimizers and losses compute in float32.

    Attributes:
        autocast: makes a context for forward passes.
        scaler: for fp16; else None.

    Args:
        name: ``fp32``, ``bf16`` or ``fp16``.
        device: of the model.

    Raises:
        OptionError: for another name, or one that this torch does not have on the device.
    """

    autocast: Callable[[], AbstractContextManager[object]]

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in DTYPES:
            raise OptionError(f"train.precision: '{name}' is not one of {', '.join(PRECISIONS)}")
        dtype = DTYPES[name]
        if dtype is not None and not autocasts(device.type):
            raise OptionError(f"train.precision: torch {torch.__version__} has no '{name}' on {device.type}; take fp32")
        if name == "fp16" and not hasattr(torch.amp, "GradScaler"):
            raise OptionError(f"train.precision: fp16 needs torch 2.3; this is {torch.__version__}; take bf16 or fp32")
        self.autocast = nullcontext if dtype is None else partial(torch.autocast, device.type, dtype=dtype)
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
