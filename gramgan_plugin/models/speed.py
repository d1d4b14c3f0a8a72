"""What makes a step faster without changing what it computes: lower precision, compiled networks."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._functorch import config as functorch

from gramgan_plugin.errors import OptionError
from gramgan_plugin.registration import did_you_mean

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = (*DTYPES, "auto")
COMPILED = ("g", "d", "vgg")
# Torch's other modes replay CUDA graphs, whose second call (D on SR) overwrites what the first (on GT) has answered.
MODES = ("default", "max-autotune-no-cudagraphs")


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
        """A context for forward passes."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


class Compilation:
    """Which networks torch.compile is asked to compile, and how.

    Args:
        train: the section of the options: ``compile``, a flag; ``compile_networks``, some of ``g``, ``d``, ``vgg``
            (all, if it is left out); ``compile_mode`` and ``compile_backend``, as ``torch.compile`` has them.

    Raises:
        OptionError: if something unknown is named.
    """

    def __init__(self, train: Mapping[str, Any]) -> None:
        chosen = train.get("compile_networks") or COMPILED
        _check_choice("compile_networks", chosen, COMPILED)
        self.networks: tuple[str, ...] = tuple(chosen) if train.get("compile") else ()
        names = {"mode": MODES, "backend": torch.compiler.list_backends(None)}
        self.arguments = {}
        for name, known in names.items():
            value = train.get(f"compile_{name}")
            if value is not None:
                _check_choice(f"compile_{name}", [value], known)
                self.arguments[name] = value
        if self.networks:
            # Gradients of single terms are measured by several backward passes through one graph.
            functorch.donated_buffer = False

    def __contains__(self, name: str) -> bool:
        return name in self.networks

    def apply(self, name: str, net: nn.Module) -> None:
        """Compile ``net`` in place, at its first call, if it is one of those asked for; its state dict stays."""
        if name in self.networks:
            net.compile(**self.arguments)

    def off(self) -> AbstractContextManager[object]:
        """A context that runs networks uncompiled: images of ever new sizes would be compiled again and again."""
        return torch.compiler.set_stance("force_eager") if self.networks else nullcontext()


def _check_choice(key: str, values: Sequence[Any], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise OptionError(
                f"train.{key}: expected one of {', '.join(known)}, not {value!r}{did_you_mean(str(value), known)}"
            )
