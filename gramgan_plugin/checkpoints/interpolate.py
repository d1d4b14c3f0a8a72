"""Interpolate the weights of networks (Wang et al. 2018, ESRGAN, section 3.4): a mean of PSNR- and GAN-trained ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gramgan_plugin.checkpoints.finite import first_non_finite
from gramgan_plugin.checkpoints.generators import Generator, recognise
from gramgan_plugin.checkpoints.safetensors_files import save_safetensors
from gramgan_plugin.checkpoints.tensor_files import save_tensors
from gramgan_plugin.checkpoints.weights_file import WeightsFile, read_weights
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import printable, shown

# Networks that one was trained from have cosines near 1 between their weights; those of other starts, near 0.
LEAST_LIKENESS = 0.5


@dataclass(frozen=True)
class Source:
    """A file of weights to interpolate; ``generator`` is None for architectures outside the ESRGAN family."""

    file: WeightsFile
    generator: Generator | None

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors, by BasicSR's names if the architecture has such."""
        return self.file.state if self.generator is None else self.generator.state

    @property
    def name(self) -> str:
        """The file, for messages."""
        return printable(str(self.file.path))


def read_sources(paths: Sequence[str | Path], param_key: str | None = None) -> list[Source]:
    """Read files of weights of one network.

    If all files have averaged weights these are taken, otherwise ``params`` or the only weights of each.

    Args:
        paths: at least two files, in any formats.
        param_key: the key of the weights in each; None decides as above.

    Raises:
        UserError: one line, if a file cannot be used, or the networks differ.
    """
    files = [read_weights(path, param_key) for path in paths]
    if param_key is None and len({file.averaged for file in files}) == 2:
        files = [read_weights(file.path, "params") if "params" in file.keys else file for file in files]
    sources = [Source(file, recognise(file.state)) for file in files]
    for other in sources[1:]:
        _check_same(sources[0], other)
    return sources


def interpolate(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted sum of state dicts, computed in float64 and rounded to the first one's types.

    Args:
        states: the same names and shapes.
        weights: one for each; for a mean they add up to 1.

    Raises:
        ValueError: if the numbers of states and weights differ, or a weight is not finite.

    Example:
        >>> import torch
        >>> interpolate([{"a": torch.tensor([0.0])}, {"a": torch.tensor([4.0])}], [0.25, 0.75])["a"].item()
        3.0
    """
    if len(states) != len(weights) or not all(map(math.isfinite, weights)):
        raise ValueError("weights: expected a finite number for each state dict")
    result = {}
    for name, first in states[0].items():
        if not first.is_floating_point():  # counters of BatchNorm
            result[name] = first.clone()
            continue
        total = sum(weight * state[name].double() for weight, state in zip(weights, states, strict=True))
        assert isinstance(total, Tensor)
        result[name] = total.to(first.dtype)
    return result


def mixed_weights(sources: Sequence[Source], shares: Sequence[float]) -> tuple[WeightsFile, Generator | None]:
    """Return the weighted mean of networks, as if it had been read from the first one's file.

    Args:
        sources: of `read_sources`.
        shares: the weight of each; they add up to 1.

    Raises:
        UserError: if a value is non-finite.
    """
    state = interpolate([source.state for source in sources], shares)
    bad = first_non_finite(state)
    if bad is not None:
        raise UserError(f"{shown(bad)} holds values that are not finite in one of the files, or after interpolation")
    first = sources[0]
    generator = None if first.generator is None else replace(first.generator, state=state)
    return replace(first.file, state=state), generator


def save_interpolated(sources: Sequence[Source], shares: Sequence[float], target: Path) -> None:
    """Write the weighted mean of networks: safetensors by its suffix, otherwise BasicSR's format.

    Args:
        sources: of `read_sources`.
        shares: the weight of each; they add up to 1.
        target: the file.

    Raises:
        UserError: if it cannot be written, or a value is non-finite.
    """
    state = mixed_weights(sources, shares)[0].state
    if target.suffix == ".safetensors":
        files = [{"file": source.file.path.name, "share": share} for source, share in zip(sources, shares, strict=True)]
        save_safetensors(state, target, {"interpolated": files})
    else:
        save_tensors({"params": state}, target)


def likeness(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return the cosine of the angle between two networks' weights, over all convolutions and matrices."""
    names = [name for name, tensor in first.items() if tensor.ndim > 1 and tensor.is_floating_point()]
    products = torch.zeros(3, dtype=torch.float64)
    for name in names:
        a, b = first[name].double().flatten(), second[name].double().flatten()
        products += torch.stack([a @ b, a @ a, b @ b])
    return float(products[0] / (products[1] * products[2]).sqrt().clamp_min(1e-300))


def strangers_warning(sources: Sequence[Source]) -> str | None:
    """Return a warning if one network was not trained from another, or from the same start; None otherwise."""
    for other in sources[1:]:
        cosine = likeness(sources[0].state, other.state)
        if cosine < LEAST_LIKENESS:
            return (
                f"{sources[0].name} and {other.name} are far apart (cosine {cosine:.2f}): they were not trained from "
                "one another, and what lies between them may draw dark or empty images"
            )
    return None


def _check_same(first: Source, other: Source) -> None:
    architectures = [source.generator and source.generator.architecture for source in (first, other)]
    if architectures[0] != architectures[1]:
        kinds = [kind or "another architecture" for kind in architectures]
        raise UserError(f"{first.name} is {kinds[0]}, {other.name} is {kinds[1]}: they cannot be interpolated")
    if first.generator is not None and other.generator is not None:
        ours, theirs = first.generator.options, other.generator.options
        for name in ours:
            if ours[name] != theirs[name]:
                differ = f"{first.name} has {name} {ours[name]}, {other.name} has {theirs[name]}"
                raise UserError(f"{differ}: they cannot be interpolated")
    if first.state.keys() != other.state.keys():
        name = next(iter(first.state.keys() ^ other.state.keys()))
        raise UserError(f"{shown(name)} is in only one of {first.name} and {other.name}: they cannot be interpolated")
    for name, tensor in first.state.items():
        if tensor.shape != other.state[name].shape:
            raise UserError(f"{shown(name)} has another shape in {other.name} than in {first.name}")
