"""Convert weights between the formats of the ESRGAN family."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gramgan_plugin.checkpoints.formats import FORMATS, Format, layer_of
from gramgan_plugin.checkpoints.generators import Generator, recognise
from gramgan_plugin.checkpoints.networks import build_network
from gramgan_plugin.checkpoints.onnx_export import export_onnx
from gramgan_plugin.checkpoints.safetensors_files import save_safetensors
from gramgan_plugin.checkpoints.tensor_files import save_tensors
from gramgan_plugin.checkpoints.weights_file import WeightsFile, read_weights
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import file_sha256
from gramgan_plugin.utils.text import printable

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx"}  # of the others: .pth


def convert_weights(source: str | Path, to: str, target: Path, param_key: str | None = None) -> str:
    """Convert a file of weights to one of ``formats.TARGETS``.

    Values and types of numbers stay as they are, but in ONNX, which is float32. safetensors files have BasicSR's
    names, and metadata: those of the source, architecture, scale, iteration, and the SHA-256 of the source.

    Args:
        source: the file.
        to: the target. "original", "old-arch" and "mmagic" are for architectures that the format has.
        target: the file to write.
        param_key: the key of the weights in ``source``; None prefers averaged weights.

    Returns:
        One line on what was written.

    Raises:
        UserError: one line, if ``source`` cannot be used or ``target`` cannot be written.
    """
    target = Path(target)
    file = read_weights(source, param_key)
    generator = recognise(file.state)
    if to == "onnx":
        network = build_network(file, generator)
        difference = export_onnx(network, target)
        return f"{target}: ONNX, checked by ONNX Runtime: largest difference {difference:.1e}"
    state = file.state if generator is None else generator.state
    if to == "safetensors":
        save_safetensors(state, target, weights_metadata(file, generator))
    elif to == "basicsr":
        save_tensors({"params_ema" if file.averaged else "params": state}, target)
    else:
        save_tensors(_in_format(file, generator, to), target)
    what = "network" if generator is None else generator.architecture
    return f"{target}: {what}, {to}"


def named_as(generator: Generator, known: Format) -> dict[str, Tensor]:
    """Return a generator's tensors under the names of a format, prefix included.

    Raises:
        ValueError: if the format has no names for the architecture.
    """
    if known.architecture != generator.architecture:
        raise ValueError(f"{known.written_by} has no names for {generator.architecture}")
    names = known.names(_blocks(generator), _upsample(generator))
    named = {}
    for name, tensor in generator.state.items():
        layer = layer_of(name)
        named[f"{known.prefix}{names[layer]}{name[len(layer) :]}"] = tensor
    return named


def weights_metadata(file: WeightsFile, generator: Generator | None) -> dict[str, Any]:
    """Return what is written beside weights in a safetensors file: plain values, no paths."""
    facts: dict[str, Any] = dict(file.metadata) | {"source_sha256": file_sha256(file.path)}
    if file.key is not None:
        facts["key"] = file.key
    if file.iteration is not None:
        facts["iteration"] = file.iteration
    if generator is not None:
        facts |= {"architecture": generator.architecture, "scale": generator.scale}
    return facts


def _in_format(file: WeightsFile, generator: Generator | None, to: str) -> Mapping[str, Any]:
    architecture = "this network" if generator is None else generator.architecture
    known = next((one for one in FORMATS if one.name == to and one.architecture == architecture), None)
    if generator is None or known is None:
        name = printable(str(file.path))
        raise UserError(f"{name}: {to} has no names for {architecture}; use basicsr, safetensors or onnx")
    state = named_as(generator, known)
    return {known.wrapper: state} if known.wrapper is not None else state


def _blocks(generator: Generator) -> int:
    return int(generator.options["num_block"])


def _upsample(generator: Generator) -> int:
    return sum(layer_of(name).startswith(("conv_up", "upconv")) for name in generator.state) // 2
