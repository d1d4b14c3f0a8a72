"""VGG19 trained on ImageNet, as a fixed feature extractor (Simonyan and Zisserman, ICLR 2015)."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

# Channels and number of convolutions of the five blocks; a pooling follows each but the last.
BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def _layers() -> dict[str, int]:
    """Return each layer's place in torchvision's ``features``."""
    places, place = {}, 0
    for block, (_, convs) in enumerate(BLOCKS, start=1):
        for conv in range(1, convs + 1):
            places[f"conv{block}_{conv}"] = place
            places[f"relu{block}_{conv}"] = place + 1
            place += 2
        place += 1  # the pooling
    return places


LAYERS = _layers()


class VGG19Features(nn.Module):
    """Features of some of VGG19's layers, built down to the deepest of them; never trained.

    Args:
        layers: names, such as ``conv5_4``, or ``relu5_4`` for after the activation.
        weights: tensors by torchvision's key names (``features.0.weight``), as
            `gramgan_plugin.checkpoints.vgg19.load_vgg19` returns them.
        use_input_norm: normalise by ImageNet's mean and standard deviation.
        range_norm: map images from [-1, 1] to [0, 1] first.

    Raises:
        ValueError: if ``weights`` lack a layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Iterable[str],
        weights: Mapping[str, Tensor],
        use_input_norm: bool = True,
        range_norm: bool = False,
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.use_input_norm = use_input_norm
        self.range_norm = range_norm
        self.features = _features(self.layers)
        missing = [name for name in self.features.state_dict() if f"features.{name}" not in weights]
        if missing:
            raise ValueError(f"weights: lack features.{missing[0]}, which {', '.join(self.layers)} need")
        self.features.load_state_dict({name: weights[f"features.{name}"] for name in self.features.state_dict()})
        self.requires_grad_(False).eval()
        # Constants of the network, not weights: they stay out of the state dict.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the features of (N, 3, H, W) at each of the layers, from the shallowest to the deepest."""
        image = image.to(torch.promote_types(image.dtype, self.mean.dtype))
        if self.range_norm:
            image = (image + 1) / 2
        if self.use_input_norm:
            image = (image - self.mean) / self.std
        wanted = {LAYERS[layer]: layer for layer in self.layers}
        features = {}
        for place, layer in enumerate(self.features):
            image = layer(image)
            if place in wanted:
                features[wanted[place]] = image
        return features

    def train(self, mode: bool = True) -> "VGG19Features":
        """Stay in eval mode: the network is never trained."""
        super().train(False)
        return self


class VGG19Layer(nn.Module):
    """Features of one layer of VGG19.

    Attributes:
        layer: its name.
        channels: of the map.
        reduction: see `reduction`.
        margin: pixels of the image around the block of ``reduction`` x ``reduction`` that affect a pixel of the map.

    Args:
        layer: ``conv1_2``, or ``relu1_2`` for after the activation.
        weights: see `VGG19Features`.

    Raises:
        ValueError: for an unknown layer.
    """

    def __init__(self, layer: str, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"features: expected a layer of VGG19, such as conv1_2, got {layer!r}")
        self.layer = layer
        self.network = VGG19Features([layer], weights)
        block, conv = (int(number) for number in layer[4:].split("_"))
        self.channels = BLOCKS[block - 1][0]
        self.reduction = reduction(layer)
        # Each convolution adds one pixel of its map in each direction; pooling adds none.
        before = sum(2**place * convs for place, (_, convs) in enumerate(BLOCKS[: block - 1]))
        self.margin = before + conv * self.reduction

    def forward(self, image: Tensor) -> Tensor:
        """Return features (N, C, H / reduction, W / reduction), in at least float32, of (N, 3, H, W) in [0, 1].

        Raises:
            ValueError: if the images do not have 3 channels.
        """
        if image.dim() != 4 or image.shape[1] != 3:
            raise ValueError(f"features are those of images (N, 3, H, W), got {tuple(image.shape)}")
        maps: Tensor = self.network(image)[self.layer]
        return maps.to(torch.promote_types(maps.dtype, torch.float32))

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the weights down to the layer: the same for every file that holds them."""
        digest = hashlib.sha256()
        for name, value in sorted(self.network.features.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}\n".encode("ascii"))
            digest.update(value.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes())
        return digest.hexdigest()


def reduction(layer: str) -> int:
    """Return the pixels of the image per pixel of a layer's map, in each direction.

    Each block but the first halves the sides.

    >>> reduction("conv1_2"), reduction("relu3_1")
    (1, 4)
    """
    return 2 ** (int(layer[4]) - 1)


def _features(wanted: tuple[str, ...]) -> nn.Sequential:
    """Build the layers of VGG19's features down to the deepest of those wanted, numbered as in torchvision."""
    layers: list[nn.Module] = []
    channels = 3
    for block, (width, convs) in enumerate(BLOCKS, start=1):
        for conv in range(1, convs + 1):
            # In place, which saves memory and time, unless it would overwrite a wanted layer.
            in_place = f"conv{block}_{conv}" not in wanted
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=in_place)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[: 1 + max(LAYERS[name] for name in wanted)])
