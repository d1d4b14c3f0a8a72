"""Small generators of the ESRGAN family in the forms of other programs, whose names are written out here by hand."""

import re
from collections.abc import Callable

import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from torch import Tensor, nn

from gramgan_plugin.archs import SRResNetBN
from tests.checkpoints.public_srgan import used

State = dict[str, Tensor]


def rrdbnet(seed: int = 0, **options: int) -> RRDBNet:
    """BasicSR's RRDBNet: 2 blocks, 8 features, growth 4."""
    torch.manual_seed(seed)
    options = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "num_grow_ch": 4} | options
    return RRDBNet(**options).eval()


def msrresnet(seed: int = 0, **options: int) -> MSRResNet:
    """BasicSR's MSRResNet: 2 blocks, 8 features."""
    torch.manual_seed(seed)
    return MSRResNet(**({"num_feat": 8, "num_block": 2} | options)).eval()


def srvggnet(seed: int = 0, **options: int) -> SRVGGNetCompact:
    """BasicSR's SRVGGNetCompact: 3 convolutions, 8 features."""
    torch.manual_seed(seed)
    return SRVGGNetCompact(**({"num_feat": 8, "num_conv": 3} | options)).eval()


def srresnet_bn(seed: int = 0, **options: int | str) -> SRResNetBN:
    """SRGAN's generator: 2 blocks, 8 features."""
    torch.manual_seed(seed)
    net = SRResNetBN(**({"num_feat": 8, "num_block": 2} | options))
    used(net, seed)
    return net


def original(state: State, hr: str = "HRconv") -> State:
    """Names of xinntao/ESRGAN's RRDBNet_arch.py."""
    pairs = {"conv_body": "trunk_conv", "conv_up": "upconv", "conv_hr": hr, "body.": "RRDB_trunk.", ".rdb": ".RDB"}
    return _renamed(state, lambda name: _replaced(name, pairs))


def old_arch(state: State) -> State:
    """Names of the old architecture with two upsampling layers: one nn.Sequential."""
    places = {"conv_first": "0", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8", "conv_last": "10"}
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("body."))

    def rename(name: str) -> str:
        block = re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)\.(\w+)", name)
        if block:
            return f"model.1.sub.{block[1]}.RDB{block[2]}.conv{block[3]}.0.{block[4]}"
        layer, kind = name.split(".")
        return f"model.1.sub.{blocks}.{kind}" if layer == "conv_body" else f"model.{places[layer]}.{kind}"

    return _renamed(state, rename)


def mmagic(state: State) -> State:
    """A checkpoint of MMagic has several networks."""
    return {f"generator.{name}": tensor for name, tensor in state.items()} | {
        "discriminator.conv.weight": torch.ones(3)
    }


def original_srresnet(state: State) -> State:
    """Names of MMSR's SRResNet_arch.py."""
    return _renamed(state, lambda name: _replaced(name, {"body.": "recon_trunk.", "conv_hr": "HRconv"}))


def mmagic_srresnet(state: State) -> State:
    """Names of MMagic's MSRResNet."""
    pairs = {"body.": "trunk_net.", "upconv1": "upsample1.upsample_conv", "upconv2": "upsample2.upsample_conv"}
    return mmagic(_renamed(state, lambda name: _replaced(name, pairs)))


def _renamed(state: State, rename: Callable[[str], str]) -> State:
    return {rename(name): tensor for name, tensor in state.items()}


def _replaced(name: str, pairs: dict[str, str]) -> str:
    for ours, theirs in pairs.items():
        name = name.replace(ours, theirs)
    return name


def output(net: nn.Module, channels: int = 3) -> Tensor:
    """The network's result for a fixed random image."""
    image = torch.rand(1, channels, 12, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result: Tensor = net(image)
    return result
