"""Compile networks by ``torch.compile`` as the options say."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._functorch import config as functorch

from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import did_you_mean

COMPILED = ("g", "d", "vgg")
# Other modes replay CUDA graphs, whose second call (D on SR) overwrites the outputs of the first (D on GT).
MODES = ("default", "max-autotune-no-cudagraphs")


class Compilation:
    """The networks to compile by ``torch.compile``, and how.

    Args:
        train: section of the options: ``compile``, a flag; ``compile_networks``, some of ``g``, ``d``, ``vgg``
            (default: all); ``compile_mode`` and ``compile_backend``, passed to ``torch.compile``.

    Raises:
        OptionError: if a network, mode or backend is unknown.
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
            # The gradients of single terms need several backward passes through one graph.
            functorch.donated_buffer = False

    def __contains__(self, name: str) -> bool:
        return name in self.networks

    def apply(self, name: str, net: nn.Module) -> None:
        """Compile ``net`` in place, at its first call, if it is to be compiled; its state dict keeps its names."""
        if name in self.networks:
            net.compile(**self.arguments)

    def off(self) -> AbstractContextManager[object]:
        """Return a context that runs networks uncompiled: each new size of image would be compiled again."""
        return torch.compiler.set_stance("force_eager") if self.networks else nullcontext()


def _check_choice(key: str, values: Sequence[Any], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise OptionError(
                f"train.{key}: expected one of {', '.join(known)}, not {value!r}{did_you_mean(str(value), known)}"
            )
