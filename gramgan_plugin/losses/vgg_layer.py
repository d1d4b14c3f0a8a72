"""One layer of VGG19 as a map from images to features."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.losses.vgg_perceptual_loss import BLOCKS, LAYERS, VGGPerceptualLoss


class VGGLayer(nn.Module):
    """Features of one layer of a VGG19 trained on ImageNet; never trained.

    Attributes:
        layer: its name.
        channels: of the map.
        reduction: see `reduction`.
        margin: pixels of the image that a pixel of the map sees around its own block of ``reduction`` x ``reduction``.

    Args:
        layer: ``conv1_2``, or ``relu1_2`` for after the activation.
        vgg_weights: as in `VGGPerceptualLoss`.

    Raises:
        ValueError: for an unknown layer.
        UserError: if the weights cannot be had, or lack a layer that is needed.
    """

    def __init__(self, layer: str, vgg_weights: str | None = None) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"features: expected a layer of VGG19, such as conv1_2, got {layer!r}")
        self.layer = layer
        self.network = VGGPerceptualLoss(layer_weights={layer: 1.0}, vgg_weights=vgg_weights)
        block, conv = (int(number) for number in layer[4:].split("_"))
        self.channels = BLOCKS[block - 1][0]
        self.reduction = reduction(layer)
        # Each convolution sees a pixel of its own map farther, each way; pooling sees only what it puts together.
        before = sum(2**place * convs for place, (_, convs) in enumerate(BLOCKS[: block - 1]))
        self.margin = before + conv * self.reduction

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> "VGGLayer":
        """From an option block: ``layer``, and perhaps ``vgg_weights``.

        Raises:
            ValueError: for other keys.
        """
        if "layer" not in options or set(options) - {"layer", "vgg_weights"}:
            given = ", ".join(map(str, options)) or "nothing"
            raise ValueError(f"features: expected `layer` and perhaps `vgg_weights`, got {given}")
        return cls(options["layer"], options.get("vgg_weights"))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, C, H / reduction, W / reduction), in at least float32 at the end.

        Raises:
            ValueError: if the images have not 3 channels.
        """
        if image.dim() != 4 or image.shape[1] != 3:
            raise ValueError(f"features are those of images (N, 3, H, W), got {tuple(image.shape)}")
        maps: Tensor = self.network.extract(image)[self.layer]
        return maps.to(torch.promote_types(maps.dtype, torch.float32))

    def weights_sha256(self) -> str:
        """SHA-256 of the weights down to the layer: the same for every file that holds them."""
        digest = hashlib.sha256()
        for name, value in sorted(self.network.features.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}\n".encode("ascii"))
            digest.update(value.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes())
        return digest.hexdigest()


def reduction(layer: str) -> int:
    """Pixels of the image to one of a layer's map, each way: each block but the first begins with half the side.

    >>> reduction("conv1_2"), reduction("relu3_1")
    (1, 4)
    """
    return 2 ** (int(layer[4]) - 1)
