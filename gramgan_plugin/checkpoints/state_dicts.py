"""Finding a network's weights in a file, and saying how well they fit the network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

# Wrappers that training frameworks put around a state dict, in the order in which they are tried when the key
# asked for is not there.
WRAPPER_KEYS = ("params", "params_ema", "state_dict", "model")


@dataclass
class Fit:
    """Which tensors of a file fit a network: the names that were loaded, and those that were not and why."""

    network: str
    source: str
    key: str | None
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if the file and the network have the same tensors in the same shapes."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """One line if all fits; otherwise a line for each kind of misfit, with the first few names."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        where = f"{self.source} [{self.key}]" if self.key else self.source
        lines = [f"{self.network}: {len(self.loaded)} of {total} tensors loaded from {where}"]
        for label, names in (
            ("not in the file", self.missing),
            ("only in the file", self.unexpected),
            ("of another shape", self.mismatched),
        ):
            if names:
                shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                lines.append(f"{len(names)} {label}: {shown}")
        return "; ".join(lines)


def find_state_dict(loaded: Any, param_key: str | None) -> tuple[dict[str, Tensor], str | None]:
    """The state dict in what a checkpoint file held, and the key under which it stood.

    BasicSR wraps it under ``params`` or ``params_ema``, others under ``state_dict``, and many files are a bare
    state dict. ``param_key`` is preferred; where the file hasn't got it, whatever it has is taken. A ``module.``
    prefix (DataParallel's) is removed.

    Args:
        loaded: what ``load_tensors`` returned.
        param_key: the key asked for (``path.param_key_g``), or None for no preference.

    Returns:
        The state dict, and the key or None for a bare one.

    Raises:
        ValueError: if there is no state dict to be found.
    """
    if not isinstance(loaded, Mapping):
        raise ValueError(f"holds a {type(loaded).__name__}, not a state dict")
    for key in (param_key, *WRAPPER_KEYS):
        if key is not None and isinstance(loaded.get(key), Mapping):
            return _clean(loaded[key]), key
    if any(isinstance(value, Tensor) for value in loaded.values()):
        return _clean(loaded), None
    raise ValueError(f"holds no state dict; its keys are {', '.join(map(str, list(loaded)[:6])) or 'none'}")


def fit_weights(net: nn.Module, weights: Mapping[str, Tensor], source: str, key: str | None) -> Fit:
    """Copy into ``net`` the tensors that fit by name and shape, leave the others, and report both.

    Args:
        net: the network; its tensors keep their device and dtype.
        weights: state dict.
        source: file name, for the report.
        key: the key under which it stood, for the report.
    """
    fit = Fit(type(net).__name__, source, key)
    own = net.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, tensor in own.items():
        if name not in weights:
            fit.missing.append(name)
        elif weights[name].shape != tensor.shape:
            fit.mismatched.append(f"{name} {tuple(weights[name].shape)} for {tuple(tensor.shape)}")
        else:
            fit.loaded.append(name)
            fitting[name] = weights[name]
    fit.unexpected = [name for name in weights if name not in own]
    with torch.no_grad():
        net.load_state_dict(fitting, strict=False)
    return fit


def _clean(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
