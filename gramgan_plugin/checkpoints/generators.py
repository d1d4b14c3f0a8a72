"""Recognise a generator of the ESRGAN family by the names and shapes of its tensors, and build it."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.archs.msrresnet_arch import MSRResNet
from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.archs.srresnet_bn_arch import SRResNetBN
from gramgan_plugin.archs.srvggnet_arch import SRVGGNetCompact
from gramgan_plugin.archs.surgenet_arch import SuRGeNet
from gramgan_plugin.checkpoints.formats import MOST_UPSAMPLE, PREFIXES, Format, layer_of, match_format

_NETWORKS: Mapping[str, type[nn.Module]] = {
    "RRDBNet": RRDBNet,
    "SRVGGNetCompact": SRVGGNetCompact,
    "MSRResNet": MSRResNet,
    "SRResNetBN": SRResNetBN,
    "SRResNetBN (tanh)": SRResNetBN,
    "SuRGeNet": SuRGeNet,
}
_SRVGG_LAYER = re.compile(r"body\.(\d{1,4})\.(weight|bias)")


@dataclass(frozen=True)
class Generator:
    """A generator's weights by BasicSR's names, and the options of its network.

    Attributes:
        architecture: "RRDBNet", "SRVGGNetCompact", "MSRResNet", "SuRGeNet", "SRResNetBN", or "SRResNetBN (tanh)" for
            that with ``output: tanh``, whose weights are of no use to the other.
        format: the name of the format in which the tensors were given, see ``formats.FORMATS``.
        options: the arguments of the architecture's class in ``gramgan_plugin.archs``.
        scale: side of SR divided by side of LQ.
        in_channels: of LQ.
        out_channels: of SR.
        state: the tensors, perhaps without data (meta device).
    """

    architecture: str
    format: str
    options: dict[str, int | str]
    scale: int
    in_channels: int
    out_channels: int
    state: dict[str, Tensor]

    def build(self) -> nn.Module:
        """Return the network with these weights in float32, in evaluation mode, without gradients."""
        with torch.device("meta"):
            net = _NETWORKS[self.architecture](**self.options)
        tensors = {name: tensor.detach() for name, tensor in self.state.items()}
        floats = {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}
        net.load_state_dict(tensors | floats, assign=True)
        return net.eval().requires_grad_(False)

    def network_g(self) -> dict[str, Any] | None:
        """Return the block ``network_g`` of an option file that builds this network with BasicSR's class, or None."""
        options = dict(self.options)
        if self.architecture == "RRDBNet":
            upsample, unshuffle = options.pop("num_upsample"), options.pop("unshuffle")
            if upsample != 2 or unshuffle not in (1, 2, 4):
                return None
            options["scale"] = self.scale
        return {"type": _NETWORKS[self.architecture].__name__, **options}


def recognise(state: Mapping[str, Tensor]) -> Generator | None:
    """Return the generator of the ESRGAN family that a state dict holds, or None for any other network.

    Args:
        state: in any of the formats, with the prefixes of one network of several (``generator.``) or without.

    Example:
        >>> net = RRDBNet(num_feat=8, num_block=2, num_grow_ch=4, num_upsample=1)
        >>> found = recognise(net.state_dict())
        >>> found.architecture, found.scale, found.options["num_grow_ch"]
        ('RRDBNet', 2, 4)
    """
    for prefix, part in parts_of(state):
        found = _renamed(part, prefix)
        if found is not None:
            return found
    return None


def parts_of(state: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (prefix, state dict without it) of each network in a state dict, at last ("", all of it)."""
    for prefix in PREFIXES:
        part = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if part:
            yield prefix, part
    yield "", dict(state)


def _renamed(state: Mapping[str, Tensor], prefix: str) -> Generator | None:
    matched = match_format({layer_of(name) for name in state}, prefix)
    if matched is None:
        return _srvgg(state) or _surgenet(state)
    known, names = matched
    if known.architecture.startswith("SRResNetBN"):
        found = _srresnet_bn(state, names, known)
        return None if found is None else _checked(found)
    kinds = [(layer, kind) for layer in names for kind in ("weight", "bias")]
    if {f"{names[layer]}.{kind}" for layer, kind in kinds} != set(state):
        return None
    if any(state[f"{names[layer]}.{kind}"].ndim != (4 if kind == "weight" else 1) for layer, kind in kinds):
        return None
    ordered = {f"{layer}.{kind}": state[f"{names[layer]}.{kind}"] for layer, kind in kinds}
    read = _rrdbnet if known.architecture == "RRDBNet" else _msrresnet
    return _checked(read(ordered, known.name))


def _rrdbnet(state: dict[str, Tensor], name: str) -> Generator:
    blocks = sum(layer.endswith(".rdb1.conv1.weight") for layer in state)
    upsample = sum(layer.startswith("conv_up") and layer.endswith("weight") for layer in state)
    feat, stored = state["conv_first.weight"].shape[:2]
    out = len(state["conv_last.weight"])
    unshuffle = next((side for side in (2, 4) if stored == out * side**2), 1)
    options: dict[str, int | str] = {
        "num_in_ch": stored // unshuffle**2,
        "num_out_ch": out,
        "num_feat": feat,
        "num_block": blocks,
        "num_grow_ch": len(state["body.0.rdb1.conv1.weight"]),
        "num_upsample": upsample,
        "unshuffle": unshuffle,
    }
    return Generator("RRDBNet", name, options, 2**upsample // unshuffle, stored // unshuffle**2, out, state)


def _msrresnet(state: dict[str, Tensor], name: str) -> Generator:
    feat, channels = state["conv_first.weight"].shape[:2]
    upsample = sum(layer.startswith("upconv") and layer.endswith("weight") for layer in state)
    factor = math.isqrt(len(state["upconv1.weight"]) // max(1, feat)) if upsample else 0
    options: dict[str, int | str] = {
        "num_in_ch": channels,
        "num_out_ch": len(state["conv_last.weight"]),
        "num_feat": feat,
        "num_block": sum(layer.endswith(".conv1.weight") for layer in state),
        "upscale": factor**upsample,
    }
    return Generator("MSRResNet", name, options, factor**upsample, channels, len(state["conv_last.weight"]), state)


def _srresnet_bn(state: Mapping[str, Tensor], names: Mapping[str, str], known: Format) -> Generator | None:
    own = {theirs: layer for layer, theirs in names.items()}
    named = {f"{own[layer_of(name)]}{name[len(layer_of(name)) :]}": tensor for name, tensor in state.items()}
    tanh = known.architecture.endswith("(tanh)")
    first, last = (named.get(f"{layer}.weight") for layer in ("conv_first", "conv_tanh" if tanh else "conv_last"))
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        return None
    norms = [layer for layer in names if layer.rpartition(".")[2].startswith("bn")]
    biases = {f"{layer.replace('bn', 'conv')}.bias": named.get(f"{layer}.bias") for layer in norms}
    if not named.keys() & biases.keys():  # none has one; a bias of 0 is the same network
        named |= {name: torch.zeros_like(like) for name, like in biases.items() if like is not None}
    for layer in norms:  # not in files of torch before 0.4.1
        named.setdefault(f"{layer}.num_batches_tracked", torch.tensor(0))
    stages = sum(layer.startswith("upconv") for layer in names)
    options: dict[str, int | str] = {
        "num_in_ch": first.shape[1],
        "num_out_ch": len(last),
        "num_feat": len(first),
        "num_block": sum(layer.endswith(".conv1") for layer in names),
        "upscale": 2**stages,
        "output": "tanh" if tanh else "linear",
    }
    return Generator(known.architecture, known.name, options, 2**stages, first.shape[1], len(last), named)


def _srvgg(state: Mapping[str, Tensor]) -> Generator | None:
    layers = [int(found[1]) for found in map(_SRVGG_LAYER.fullmatch, state) if found]
    if len(layers) != len(state) or not layers or "body.0.weight" not in state:
        return None
    last = max(layers)
    first = state["body.0.weight"]
    if any(tensor.ndim not in (1, 4) for tensor in state.values()):
        return None
    if first.ndim != 4 or last % 2 or f"body.{last}.weight" not in state:
        return None
    feat, channels = first.shape[:2]
    scale = math.isqrt(len(state[f"body.{last}.weight"]) // max(1, channels))
    options: dict[str, int | str] = {
        "num_in_ch": channels,
        "num_out_ch": channels,
        "num_feat": feat,
        "num_conv": last // 2 - 1,
        "upscale": scale,
        # Without parameters, relu and leakyrelu have the same file; the public models have prelu.
        "act_type": "prelu" if "body.1.weight" in state else "relu",
    }
    return _checked(Generator("SRVGGNetCompact", "basicsr", options, scale, channels, channels, dict(state)))


def _surgenet(state: Mapping[str, Tensor]) -> Generator | None:
    first, last = state.get("conv_first.weight"), state.get("conv_last.weight")
    if "mix1.weights" not in state or first is None or last is None or first.ndim != 4 or last.ndim != 4:
        return None
    scale = 2 ** min(MOST_UPSAMPLE, sum(name.startswith("upconvs.") and name.endswith(".0.bias") for name in state))
    options: dict[str, int | str] = {
        "num_in_ch": first.shape[1],
        "num_out_ch": len(last),
        "num_feat": len(first),
        "num_block": sum(name.startswith("body0.") and name.endswith(".prelu.weight") for name in state),
        "upscale": scale,
    }
    return _checked(Generator("SuRGeNet", "basicsr", options, scale, first.shape[1], len(last), dict(state)))


def _checked(found: Generator) -> Generator | None:
    """Return the generator if its tensors are those of its network in name and shape; None otherwise."""
    sizes = [value for name, value in found.options.items() if isinstance(value, int) and name != "num_upsample"]
    return found if found.scale >= 1 and min(sizes) >= 1 and _fits(found) else None


def _fits(found: Generator) -> bool:
    values = sum(tensor.numel() for tensor in found.state.values())
    if int(found.options["num_feat"]) * int(found.options.get("num_block", 1)) > values:
        return False  # before a network of these sizes is built
    try:
        with torch.device("meta"):
            expected = _NETWORKS[found.architecture](**found.options).state_dict()
    except (ValueError, TypeError, RuntimeError):
        return False
    return expected.keys() == found.state.keys() and all(
        tensor.shape == found.state[name].shape and tensor.is_floating_point() == found.state[name].is_floating_point()
        for name, tensor in expected.items()
    )
