"""Find a network's weights in a file, and report how well they fit the network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.checkpoints.formats import WRAPPERS
from gramgan_plugin.checkpoints.generators import parts_of, recognise
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import printable, shown

# The share of a network's tensors, and of its values, that must fit if not all must.
LEAST_SHARE = 0.5

LUMA = (0.299, 0.587, 0.114)  # of R, G, B, as OpenCV converts to gray

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass
class Fit:
    """Which tensors of a file fit a network by name and shape, and which do not and why.

    Attributes:
        network: the network's class.
        source: the file.
        key: the key in it of the weights; None for a bare state dict.
        fitting: the file's tensors that fit.
        missing, unexpected, mismatched: names in the network alone, in the file alone, and of another shape.
        unusable: names of tensors of types that weights do not have (bool, int8, complex, ...), with their type.
        share: the share of the network's tensors that fit, or of its values (numbers), whichever is less. Half of the
            tensors may be biases, and half of the values one large layer, so that both are checked.
    """

    network: str
    source: str
    key: str | None
    fitting: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    share: float = 0.0

    @property
    def complete(self) -> bool:
        """True if the file and the network have the same tensors in the same shapes."""
        return not (self.missing or self.unexpected or self.mismatched or self.unusable)

    def summary(self) -> str:
        """Return one printable line: how many tensors fit, and the first names of each group that does not."""
        total = len(self.fitting) + len(self.missing) + len(self.mismatched) + len(self.unusable)
        where = f"{self.source} [{shown(self.key)}]" if self.key else self.source
        lines = [f"{self.network}: {len(self.fitting)} of {total} tensors fit those of {printable(where)}"]
        for label, names in (
            ("not in the file", self.missing),
            ("only in the file", self.unexpected),
            ("of another shape", self.mismatched),
        ):
            if names:
                first = ", ".join(map(shown, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                lines.append(f"{len(names)} {label}: {first}")
        return "; ".join(lines)

    def refusal(self, strict: bool, strict_key: str = "strict_load_g") -> str | None:
        """Return why these weights cannot be loaded and what to do, in one line; None if they can.

        Args:
            strict: all must fit. Otherwise at least half of the network's tensors and of its values.
            strict_key: the option under ``path`` that sets it.
        """
        if self.unusable:
            return f"{printable(self.source)}: {shown(self.unusable[0])}; weights are floats: save them as float32"
        enough = self.share >= LEAST_SHARE
        if self.complete or (enough and not strict):
            return None
        if enough:
            advice = f"is it a checkpoint of this network? (path.{strict_key}: false takes what fits)"
        else:
            advice = "that is less than half of the network: give a checkpoint of this network, of the same options"
        return f"{self.summary()}; {advice}"


def find_state_dict(
    loaded: Any,
    source: str,
    param_key: str | None,
    *,
    required: str | None = None,
    also: str | None = None,
    bare: str | None = None,
) -> tuple[dict[str, Tensor], str | None]:
    """The state dict in what a checkpoint file held, and the key under which it stood.

    BasicSR wraps it under ``params`` or ``params_ema``, others under ``state_dict``, and many files are a bare
    state dict. The prefixes of wrapped networks (``module.``, ``_orig_mod.``) are removed.

    Args:
        loaded: of ``load_tensors`` or ``read_headers``.
        source: the file, for messages.
        param_key: the requested key, or None for no preference.
        required: the option that requests it: the file must have the key then. None takes what the file has.
        also: a key that is tried next.
        bare: the key that a bare state dict counts as: of `saved_key`.

    Returns:
        The state dict, and the key or None for a bare one.

    Raises:
        UserError: if there is no state dict, or not the required one; the message lists the keys.
    """
    source = printable(source)
    if not isinstance(loaded, Mapping):
        raise UserError(f"{source}: holds a {type(loaded).__name__}, not a state dict; {_GIVE_WEIGHTS}")
    keys = keys_of_weights(loaded)
    if required is not None and param_key not in (*keys, bare):
        has = (
            f"it has {_listed(keys)}" if keys else "its weights are under no key: leave that option out, or set it to ~"
        )
        raise UserError(f"{required}: {source} has no weights under {shown(repr(param_key))}; {has}")
    for key in (param_key, also, *WRAPPERS):
        if key in keys:
            return _clean(loaded[key], source), key
    if _holds_tensors(loaded):
        return _clean(loaded, source), None
    if len(keys) == 1:
        return _clean(loaded[keys[0]], source), keys[0]
    if keys:
        raise UserError(f"{source}: holds weights under {_listed(keys)}; name one of them in path.param_key_g (or _d)")
    raise UserError(f"{source}: holds no state dict; its keys are {_listed(loaded) or 'none'}; {_GIVE_WEIGHTS}")


def keys_of_weights(loaded: Mapping[Any, Any]) -> list[str]:
    """Return the keys of a checkpoint's content under which there are weights."""
    return [key for key, value in loaded.items() if isinstance(key, str) and _holds_tensors(value)]


def match_weights(
    net: nn.Module, weights: Mapping[str, Tensor], source: str, key: str | None, adapts: bool = False
) -> Fit:
    """Compare a state dict with a network by names, shapes and types of numbers; change neither.

    A generator of the ESRGAN family is taken in any of its formats, and a network out of a file of several
    (``generator.``, ``netD.``): whichever reading fits best.

    Args:
        net: the network, on any device.
        weights: state dict, perhaps on the meta device.
        source: file name, for the report.
        key: its key in the file, for the report.
        adapts: convert between one and three channels, see `adapt_channels`.
    """
    own = {name: tensor for name, tensor in net.state_dict().items() if isinstance(tensor, Tensor)}
    best = _compare(own, weights, Fit(type(net).__name__, source, key))
    if not best.complete:
        generator = recognise(weights)
        readings = [part for prefix, part in parts_of(weights) if prefix]
        readings += [generator.state] if generator is not None else []
        if adapts:
            readings += [adapt_channels(net, reading) for reading in (weights, *readings)]
        for reading in readings:
            fit = _compare(own, reading, Fit(type(net).__name__, source, key))
            best = fit if fit.share > best.share else best
    return best


def _compare(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], fit: Fit) -> Fit:
    for name, tensor in own.items():
        given = weights.get(name)
        if given is None:
            fit.missing.append(name)
        elif given.shape != tensor.shape:
            fit.mismatched.append(f"{name} {tuple(given.shape)} for {tuple(tensor.shape)}")
        elif not _same_kind(given.dtype, tensor.dtype):
            fit.unusable.append(f"{name} is {str(given.dtype).removeprefix('torch.')}")
        else:
            fit.fitting[name] = given
    fit.unexpected = [name for name in weights if name not in own]
    values = sum(tensor.numel() for tensor in own.values())
    taken = sum(tensor.numel() for tensor in fit.fitting.values())
    fit.share = min(len(fit.fitting) / max(1, len(own)), taken / max(1, values))
    return fit


def adapt_channels(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a gray network for one of colours, or the reverse; other tensors stay as they are.

    A gray network receives BT.601's luma of the colours, and its result is that of each colour; in reverse, gray is
    given to each colour, and the result is the luma of theirs.

    Args:
        net: the network that is to be started.
        weights: by its names.
    """
    own = net.state_dict()
    adapted = dict(weights)
    for name, given in weights.items():
        if name not in own or given.ndim != own[name].ndim or given.shape == own[name].shape:
            continue
        differ = [axis for axis in range(given.ndim) if given.shape[axis] != own[name].shape[axis]]
        if len(differ) == 1 and differ[0] < 2:
            adapted[name] = _other_channels(given, differ[0], own[name].shape[differ[0]])
    return adapted


def _other_channels(given: Tensor, axis: int, count: int) -> Tensor:
    """Convert the first axis (results) or the second (inputs) from C channels of gray to 3 C of RGB, or back."""
    luma = torch.tensor(LUMA, dtype=given.dtype, device=given.device)
    if count == 3 * given.shape[axis]:
        factors = luma if axis == 1 else torch.ones_like(luma)
        return torch.cat([given * factor for factor in factors], axis)
    if given.shape[axis] != 3 * count:
        return given
    factors = torch.ones_like(luma) if axis == 1 else luma
    parts = given.chunk(3, axis)
    return parts[0] * factors[0] + parts[1] * factors[1] + parts[2] * factors[2]


def copy_weights(net: nn.Module, fit: Fit) -> None:
    """Copy the fitting tensors into ``net``, whose tensors keep their device and type; the others stay as they are.

    Raises:
        UserError: naming the first tensor that is non-finite (in the network's type); nothing is copied then.
    """
    own = net.state_dict()
    for name, tensor in fit.fitting.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.to(own[name].dtype)).all()):
            raise UserError(
                f"{printable(fit.source)}: {shown(name)} holds values that are not finite (NaN or infinity): the file "
                "is damaged, or its training had failed; take an earlier checkpoint"
            )
    with torch.no_grad():
        net.load_state_dict(fit.fitting, strict=False)


_GIVE_WEIGHTS = "give a file of weights, such as net_g_*.pth"


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(member, Tensor) for member in value.values())


def _listed(keys: Any) -> str:
    names = [shown(key, longest=40) for key in keys]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _same_kind(given: torch.dtype, own: torch.dtype) -> bool:
    return given == own or any(given in kind and own in kind for kind in (FLOATS, INTEGERS))


def _clean(state: Mapping[Any, Any], source: str) -> dict[str, Tensor]:
    """Return the tensors by their names without the prefixes of DataParallel and torch.compile."""
    cleaned: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        parts = [part for part in str(name).split(".") if part != "_orig_mod"]
        bare = ".".join(parts).removeprefix("module.")
        if bare in cleaned:
            raise UserError(f"{source}: {shown(bare)} is there twice, with and without a prefix; {_GIVE_WEIGHTS}")
        cleaned[bare] = value
    return cleaned
