"""Build the network whose weights a file holds, whatever its architecture and format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gramgan_plugin.checkpoints.finite import first_non_finite
from gramgan_plugin.checkpoints.foreign_networks import ForeignNetwork, load_foreign
from gramgan_plugin.checkpoints.generators import Generator, recognise
from gramgan_plugin.checkpoints.weights_file import WeightsFile, read_weights
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import printable, shown


@dataclass(frozen=True)
class Network:
    """A network for upscaling, in float32 on the CPU, in evaluation mode.

    Attributes:
        net: (N, in_channels, H, W) in [0, 1] -> (N, out_channels, scale H, scale W).
        architecture: its name.
        scale: side of SR divided by side of LQ.
        in_channels: of LQ.
        out_channels: of SR.
        side_multiple: the sides of LQ must be multiples of it.
        least_side: of LQ, in pixels.
        may_tile: whether a part of an image gives the same result as the whole image.
        half: whether it is known to work in float16.
    """

    net: nn.Module
    architecture: str
    scale: int
    in_channels: int
    out_channels: int
    side_multiple: int = 1
    least_side: int = 1
    may_tile: bool = True
    half: bool = True


def load_network(path: str | Path, param_key: str | None = None) -> Network:
    """Read a file of weights and build its network.

    Args:
        path: the file.
        param_key: the key of the weights in it; None prefers averaged weights.

    Raises:
        UserError: one line, if the file cannot be used.
    """
    file = read_weights(path, param_key)
    return build_network(file, recognise(file.state))


def build_network(file: WeightsFile, generator: Generator | None) -> Network:
    """Build the network of a file that was read with its data.

    Args:
        file: of `read_weights`.
        generator: of `recognise`; None asks spandrel.

    Raises:
        UserError: one line, if no network fits, or a value is non-finite.
    """
    name = printable(str(file.path))
    bad = first_non_finite(file.state)
    if bad is not None:
        raise UserError(f"{name}: {shown(bad)} holds values that are not finite; take an earlier checkpoint")
    if generator is not None:
        found = generator
        multiple = int(found.options.get("unshuffle", 1))
        return Network(found.build(), found.architecture, found.scale, found.in_channels, found.out_channels, multiple)
    try:
        return _foreign(load_foreign(file.state))
    except ValueError as error:
        raise UserError(f"{name}: {error}; `basicsr inspect` shows what it holds") from error


def _foreign(descriptor: Any) -> Network:
    needs = descriptor.size_requirements
    return Network(
        ForeignNetwork(descriptor),
        descriptor.architecture.name,
        descriptor.scale,
        descriptor.input_channels,
        descriptor.output_channels,
        needs.multiple_of,
        max(1, needs.minimum),
        descriptor.tiling.name == "SUPPORTED" and not needs.square,
        descriptor.supports_half,
    )
