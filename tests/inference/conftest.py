"""Small networks and photos for upscaling."""

from typing import Any

import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.archs.srvggnet_arch import SRVGGNetCompact
from gramgan_plugin.checkpoints.networks import Network


@pytest.fixture
def photo() -> np.ndarray[Any, Any]:
    """(96, 120, 3) uint8 RGB."""
    return np.ascontiguousarray(skimage.data.astronaut()[:96, 60:180])


@pytest.fixture
def network() -> Network:
    """An RRDBNet x4 whose result depends on its whole neighbourhood."""
    return rrdb_network()


def rrdb_network(scale: int = 4, channels: int = 3, blocks: int = 1) -> Network:
    """A seeded RRDBNet that makes an image of an image."""
    torch.manual_seed(0)
    unshuffle = 4 // scale
    net = RRDBNet(channels, channels, 8, blocks, 4, unshuffle=unshuffle).eval().requires_grad_(False)
    net.conv_last.bias.fill_(0.5)
    return Network(net, "RRDBNet", scale, channels, channels, unshuffle)


def srvgg_network(upscale: int = 2) -> Network:
    """A seeded SRVGGNetCompact."""
    torch.manual_seed(0)
    net = SRVGGNetCompact(num_feat=8, num_conv=2, upscale=upscale).eval().requires_grad_(False)
    return Network(net, "SRVGGNetCompact", upscale, 3, 3)
