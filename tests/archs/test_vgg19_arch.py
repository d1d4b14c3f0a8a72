"""A layer of VGG19: what it sees of an image, and the fingerprint of its weights."""

from pathlib import Path

import pytest
import torch

from gramgan_plugin.archs.vgg19_arch import BLOCKS, LAYERS, VGG19Layer
from gramgan_plugin.checkpoints.vgg19 import load_vgg19


@pytest.fixture(scope="module")
def positive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights above zero, so that nothing that is seen cancels; down to conv4_1."""
    state, inputs = {}, 3
    for block, (outputs, convs) in enumerate(BLOCKS[:4], start=1):
        for conv in range(1, convs + 1 if block < 4 else 2):
            name = f"features.{LAYERS[f'conv{block}_{conv}']}"
            state[f"{name}.weight"] = torch.full((outputs, inputs, 3, 3), 1 / inputs)
            state[f"{name}.bias"] = torch.zeros(outputs)
            inputs = outputs
    path = tmp_path_factory.mktemp("weights") / "vgg.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("layer", ["conv1_1", "relu1_2", "conv2_1", "conv2_2", "conv3_1", "relu3_4", "conv4_1"])
def test_what_it_sees(positive: Path, layer: str) -> None:
    """A brighter pixel at the margin's edge reaches the middle of the map, one beyond does not."""
    network = VGG19Layer(layer, load_vgg19(positive, [layer]))
    plain = torch.ones(1, 3, 112, 112)
    middle = 56 // network.reduction
    maps = network(plain)
    assert maps.shape == (1, network.channels, 112 // network.reduction, 112 // network.reduction)
    first, last = 56 - network.margin, 55 + network.reduction + network.margin
    for y, x, seen in (
        (first, 56, True),
        (first - 1, 56, False),
        (last, 56, True),
        (last + 1, 56, False),
        (56, first, True),
        (56, first - 1, False),
        (56, last, True),
        (56, last + 1, False),
    ):
        image = plain.clone()
        image[:, :, y, x] += 1000
        moved = bool((network(image)[..., middle, middle] != maps[..., middle, middle]).any())
        assert moved == seen, (y, x)


def test_weights_sha256(positive: Path, tmp_path: Path) -> None:
    """Of the layers down to this one, whatever else is in the file, and of their values."""
    state = torch.load(positive, weights_only=True)
    torch.save({name: value for name, value in state.items() if name.startswith("features.0.")}, tmp_path / "short.pth")
    own = VGG19Layer("conv1_1", load_vgg19(positive, ["conv1_1"])).weights_sha256()
    assert VGG19Layer("relu1_1", load_vgg19(tmp_path / "short.pth", ["relu1_1"])).weights_sha256() == own
    assert len(own) == 64
    assert VGG19Layer("conv1_2", load_vgg19(positive, ["conv1_2"])).weights_sha256() != own
    state["features.0.bias"][3] = 1e-7
    torch.save(state, tmp_path / "other.pth")
    assert VGG19Layer("conv1_1", load_vgg19(tmp_path / "other.pth", ["conv1_1"])).weights_sha256() != own
