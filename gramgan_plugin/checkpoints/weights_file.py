"""Read a file of a network's weights, in any of the usual wrappers, with what the file says beside them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gramgan_plugin.checkpoints.formats import AVERAGED, AVERAGED_KEYS, GENERATOR_KEYS, WRAPPERS
from gramgan_plugin.checkpoints.headers import read_headers
from gramgan_plugin.checkpoints.safetensors_files import (
    is_safetensors,
    plain_metadata,
    read_safetensors_header,
    saved_key,
)
from gramgan_plugin.checkpoints.state_dicts import find_state_dict, keys_of_weights
from gramgan_plugin.checkpoints.tensor_files import load_tensors

# Where training code saves the number of iterations, and how file names end in it.
_ITERATIONS = ("iter", "iteration", "current_iter", "step", "global_step", "n_iter")
_ITERATION_IN_NAME = re.compile(r"_(\d{1,9})(?:_[A-Za-z]+)?$")
LONGEST_TEXT, MOST_VALUES = 10_000, 200  # characters and values of metadata


@dataclass(frozen=True)
class WeightsFile:
    """The content of a file of weights.

    Attributes:
        path: the file.
        kind: "torch" (``torch.save``) or "safetensors".
        key: the key of ``state`` in the file, or None.
        keys: all keys that hold weights.
        state: name -> tensor, perhaps without data (meta device).
        metadata: numbers, texts, lists and dicts beside the weights.
    """

    path: Path
    kind: str
    key: str | None
    keys: tuple[str, ...]
    state: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def averaged(self) -> bool:
        """Whether the names say that these are averaged weights (EMA)."""
        named = (self.key or "", str(self.metadata.get("key", "")), self.path.stem)
        return any(AVERAGED.search(name) for name in named) or any(
            name.startswith("generator_ema.") for name in self.state
        )

    @property
    def iteration(self) -> int | None:
        """The iteration that the file's content or its name (``net_g_5000.pth``) states."""
        found = next((self.metadata[key] for key in _ITERATIONS if type(self.metadata.get(key)) is int), None)
        if found is not None:
            return int(found)
        named = _ITERATION_IN_NAME.search(self.path.stem)
        return int(named[1]) if named and self.path.stem.startswith("net_") else None


def read_weights(path: str | Path, param_key: str | None = None, with_data: bool = True) -> WeightsFile:
    """Read a file of weights; nothing in it is run.

    Args:
        path: the file, of ``torch.save`` or safetensors.
        param_key: the key of the weights in it, which it must have; None prefers averaged weights, then ``params``.
        with_data: otherwise the tensors are on the meta device, and only names, shapes and sizes are read.

    Raises:
        UserError: one line, if the file is missing, damaged, or holds no weights.
    """
    path = Path(path)
    content = load_tensors(path) if with_data else read_headers(path)
    required = f"the key {param_key!r}" if param_key is not None else None
    held = keys_of_weights(content) if isinstance(content, Mapping) else []
    preferred = next((key for key in (*AVERAGED_KEYS, *WRAPPERS, *GENERATOR_KEYS) if key in held), None)
    state, key = find_state_dict(content, str(path), param_key or preferred, required=required, bare=saved_key(path))
    with path.open("rb") as stream:
        if is_safetensors(stream.read(10)):
            metadata = plain_metadata(read_safetensors_header(path)[1])
            return WeightsFile(path, "safetensors", None, (), state, _plain(metadata, ()))
    return WeightsFile(path, "torch", key, tuple(held), state, _plain(content, set(held)))


def _plain(content: Mapping[Any, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return the plain values beside the weights; long or deep ones are left out."""
    names = [name for name in content if isinstance(name, str) and name not in keys][:MOST_VALUES]
    return {name: content[name] for name in names if _is_plain(content[name], [MOST_VALUES])}


def _is_plain(value: Any, left: list[int], depth: int = 0) -> bool:
    """Return whether a value is a number, a text, or lists and dicts of few of these; ``left`` counts down."""
    left[0] -= 1
    if depth > 4 or left[0] < 0:
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(member, left, depth + 1) for key, member in value.items())
    if isinstance(value, list):
        return all(_is_plain(member, left, depth + 1) for member in value)
    return isinstance(value, int | float | bool | None) or (isinstance(value, str) and len(value) <= LONGEST_TEXT)
