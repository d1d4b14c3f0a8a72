"""The arithmetic of the forward passes: float32, or mixed precision by autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch

from gramgan_plugin.errors import OptionError

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = (*DTYPES, "auto")


class Precision:
    """The arithmetic of the forward passes: autocast's type, and the gradient scaler that fp16 needs.

    Weights, optimizers and the losses' own arithmetic stay in float32.

    Args:
        name: ``fp32``, ``bf16`` or ``fp16``.
        device: where the model is.

    Raises:
        OptionError: for another name.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in DTYPES:
            raise OptionError(f"train.precision: '{name}' is not one of {', '.join(PRECISIONS)}")
        self.name, self.device = name, device
        self.dtype = DTYPES[name]
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context for forward passes."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
