"""Describe a file of weights: architecture, size, scale, format, averaging, iteration, metadata, damage."""

from pathlib import Path
from typing import Any

from torch import Tensor

from gramgan_plugin.checkpoints.finite import first_non_finite
from gramgan_plugin.checkpoints.foreign_networks import load_foreign, options_of
from gramgan_plugin.checkpoints.formats import FORMATS
from gramgan_plugin.checkpoints.generators import Generator, recognise
from gramgan_plugin.checkpoints.weights_file import WeightsFile, read_weights
from gramgan_plugin.utils.io import describe_file
from gramgan_plugin.utils.text import shown

# Discriminators have no common format; these names occur in those that are often trained.
_DISCRIMINATORS = ("conv0_0.weight", "linear2.weight", "conv9.weight", "features.0.weight", "classifier.0.weight")


def describe_weights(path: str | Path, param_key: str | None = None) -> dict[str, Any]:
    """Return what a file of weights is, as plain values for JSON.

    Args:
        path: the file.
        param_key: the key of the weights in it; None prefers averaged weights.

    Returns:
        ``file, size, sha256, kind, keys, key, tensors, other_tensors, parameters, dtype, averaged, iteration,
        non_finite, metadata, architecture, format, scale, in_channels, out_channels, options, network_g``; None for
        what is unknown.

    Raises:
        UserError: one line, if it is no file of weights.
    """
    file = read_weights(path, param_key)
    generator = recognise(file.state)
    state = file.state if generator is None else generator.state  # without a discriminator beside it
    facts: dict[str, Any] = {"file": str(path), **describe_file(path)}
    facts |= {
        "kind": file.kind,
        "key": file.key,
        "keys": list(file.keys),
        "tensors": len(state),
        "other_tensors": len(file.state) - len(state),
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "dtype": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}),
        "averaged": file.averaged,
        "iteration": file.iteration,
        "non_finite": first_non_finite(file.state),
        "metadata": file.metadata,
    }
    return facts | (_family(generator) if generator is not None else _other(file))


def weights_lines(facts: dict[str, Any]) -> list[str]:
    """Return the description as a few printable lines."""
    scale = f" x{facts['scale']}" if facts["scale"] else ""
    options = ", ".join(f"{name} {value}" for name, value in (facts["options"] or {}).items())
    channels = f", {facts['in_channels']} -> {facts['out_channels']} channels" if facts["in_channels"] else ""
    count = f"{facts['parameters']:,d} parameters in {facts['tensors']} tensors ({', '.join(facts['dtype'])})"
    beside = f"; {facts['other_tensors']} tensors of other networks" if facts["other_tensors"] else ""
    averaged = "averaged weights (EMA)" if facts["averaged"] else "not marked as averaged (EMA)"
    under = f" under {shown(facts['key'])}" if facts["key"] else ""
    others = [shown(key) for key in facts["keys"] if key != facts["key"]]
    at = f", iteration {facts['iteration']:,d}" if facts["iteration"] is not None else ""
    lines = [
        f"{facts['architecture'] or 'unknown architecture'}{scale}{channels}{f': {options}' if options else ''}",
        f"format: {facts['format'] or 'unknown'}, {facts['kind']} file{under}"
        + (f"; also there: {', '.join(others)}" if others else ""),
        f"{count}{beside}; {averaged}{at}",
        f"{facts['size'] / 1e6:,.1f} MB, SHA-256 {facts['sha256']}",
    ]
    if facts["non_finite"] is not None:
        lines.append(f"damaged: {shown(facts['non_finite'])} holds values that are not finite")
    lines += [f"{shown(name)}: {shown(value, 200)}" for name, value in facts["metadata"].items()]
    return lines


def _family(generator: Generator) -> dict[str, Any]:
    written_by = {(one.name, one.architecture): one.written_by for one in FORMATS}
    return {
        "architecture": generator.architecture,
        "format": f"{generator.format} ({written_by.get((generator.format, generator.architecture), 'BasicSR')})",
        "scale": generator.scale,
        "in_channels": generator.in_channels,
        "out_channels": generator.out_channels,
        "options": generator.options,
        "network_g": generator.network_g(),
    }


def _other(file: WeightsFile) -> dict[str, Any]:
    facts: dict[str, Any] = dict.fromkeys(
        ("architecture", "format", "scale", "in_channels", "out_channels", "options", "network_g")
    )
    if _is_discriminator(file.state):
        return facts | {"architecture": "a discriminator"}
    try:
        descriptor = load_foreign(file.state)
    except ValueError:
        return facts
    options = options_of(descriptor.model)
    return facts | {
        "architecture": descriptor.architecture.name,
        "format": "its own",
        "scale": descriptor.scale,
        "in_channels": descriptor.input_channels,
        "out_channels": descriptor.output_channels,
        "options": options,
        "network_g": None if options is None else {"type": type(descriptor.model).__name__, **options},
    }


def _is_discriminator(state: dict[str, Tensor]) -> bool:
    return sum(name in state or f"{name}_orig" in state for name in _DISCRIMINATORS) >= 2
