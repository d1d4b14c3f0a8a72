"""The first layers of VGG19, written out in float64, on random weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

# Place in torchvision's features, name, channels in and out; before a new block comes a pooling.
CONVOLUTIONS = (
    (0, "conv1_1", 3, 64),
    (2, "conv1_2", 64, 64),
    (5, "conv2_1", 64, 128),
    (7, "conv2_2", 128, 128),
    (10, "conv3_1", 128, 256),
)
MEAN_AND_STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def write_weights(path: Path, seed: int = 0, last: str = "conv2_1") -> Path:
    """Random weights down to a layer."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for place, name, inputs, outputs in CONVOLUTIONS:
        state[f"features.{place}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / inputs**0.5
        state[f"features.{place}.bias"] = torch.randn(outputs, generator=generator) / 10
        if name == last:
            break
    torch.save(state, path)
    return path


def embedding(weights: Path, layer: str) -> Callable[[Tensor], Tensor]:
    """The features of images (N, 3, H, W), in float64."""
    state = {key: value.double() for key, value in torch.load(weights, weights_only=True).items()}

    def embed(image: Tensor) -> Tensor:
        mean, std = (torch.tensor(x).double().view(1, 3, 1, 1) for x in MEAN_AND_STD)
        image = (image - mean) / std
        for place, name, _, _ in CONVOLUTIONS:
            if place:
                image = F.relu(image)
                if name.endswith("_1"):
                    image = F.max_pool2d(image, 2)
            image = F.conv2d(image, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)
            if name[4:] == layer[4:]:
                return F.relu(image) if layer.startswith("relu") else image
        raise ValueError(layer)

    return embed
