"""The first layers of VGG19, written out in float64, on random weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128)}  # conv1_1, conv1_2, conv2_1
MEAN_AND_STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def write_weights(path: Path, seed: int = 0) -> Path:
    """Random weights down to conv2_1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for place, (inputs, outputs) in CONVOLUTIONS.items():
        state[f"features.{place}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / inputs**0.5
        state[f"features.{place}.bias"] = torch.randn(outputs, generator=generator) / 10
    torch.save(state, path)
    return path


def embedding(weights: Path, layer: str) -> Callable[[Tensor], Tensor]:
    """The features of an image (1, 3, H, W), in float64."""
    state = {key: value.double() for key, value in torch.load(weights, weights_only=True).items()}

    def conv(image: Tensor, place: int) -> Tensor:
        return F.conv2d(image, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)

    def embed(image: Tensor) -> Tensor:
        mean, std = (torch.tensor(x).double().view(1, 3, 1, 1) for x in MEAN_AND_STD)
        image = conv((image - mean) / std, 0)
        if layer == "conv1_1":
            return image
        image = conv(F.relu(image), 2)
        if layer == "conv1_2":
            return image
        image = conv(F.max_pool2d(F.relu(image), 2), 5)
        return F.relu(image) if layer == "relu2_1" else image

    return embed
