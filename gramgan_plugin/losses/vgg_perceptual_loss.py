"""The perceptual loss on features of a VGG19 trained on ImageNet."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gramgan_plugin.checkpoints.files import load_tensors
from gramgan_plugin.checkpoints.finite import first_non_finite
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.precision import at_least_float32
from gramgan_plugin.text import printable, shown

# Channels and number of convolutions of VGG19's five blocks, each but the last followed by a pooling.
BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
WEIGHTS_NAME = "vgg19-dcbb9e9d.pth"
UPSTREAM_WEIGHTS = Path("experiments/pretrained_models") / WEIGHTS_NAME

LAYER_WEIGHTS = {
    "gramgan": {"conv2_2": 1.0, "conv4_2": 0.1, "conv4_4": 0.01},
    "beby": {"conv3_4": 0.125, "conv4_4": 0.25, "conv5_4": 0.5},
}


def _layers() -> dict[str, int]:
    """Each layer's place in torchvision's ``features``."""
    places, place = {}, 0
    for block, (_, convs) in enumerate(BLOCKS, start=1):
        for conv in range(1, convs + 1):
            places[f"conv{block}_{conv}"] = place
            places[f"relu{block}_{conv}"] = place + 1
            place += 2
        place += 1  # the pooling
    return places


LAYERS = _layers()


class VGGPerceptualLoss(nn.Module):
    r"""Perceptual loss L_P on VGG19 features, by default before their activation.

    .. math::
        L_P = \sum_l w_l \, \mathrm{mean} |\phi_l(SR) - \phi_l(GT)|

    The default layers and weights are those of Song et al., Gram-GAN, Sensors 2023, 23(4), 2098; L1 is a
    decision of this project. The network is built only as deep as the deepest layer asked for, and is never
    trained.

    Args:
        loss_weight: multiplies the result.
        layer_weights: weight of each layer; ``gramgan`` for conv2_2 1.0, conv4_2 0.1, conv4_4 0.01, or
            ``beby`` for conv3_4 0.125, conv4_4 0.25, conv5_4 0.5, or a mapping from layers (``conv5_4``, or
            ``relu5_4`` for after the activation) to weights.
        criterion: ``l1`` or ``mse``.
        use_input_norm: normalise by ImageNet's mean and standard deviation.
        range_norm: map images from [-1, 1] to [0, 1] first.
        vgg_weights: a file of VGG19 weights with torchvision's key names (``features.0.weight``); None takes
            ``experiments/pretrained_models/vgg19-dcbb9e9d.pth`` where it exists, else torchvision's weights
            through torch.hub's cache.

    Raises:
        ValueError: for an unknown layer or criterion.
        UserError: if the weights cannot be had, or lack a layer that is needed.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> weights = {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(weights, Path(folder) / "vgg.pth")
        ...     loss = VGGPerceptualLoss(layer_weights={"conv1_1": 1.0}, vgg_weights=f"{folder}/vgg.pth")
        >>> float(loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)))
        0.0
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        loss_weight: float = 1.0,
        layer_weights: str | Mapping[str, float] = "gramgan",
        criterion: str = "l1",
        use_input_norm: bool = True,
        range_norm: bool = False,
        vgg_weights: str | None = None,
    ) -> None:
        super().__init__()
        if criterion not in ("l1", "mse"):
            raise ValueError(f"criterion: expected one of l1, mse, got {criterion!r}")
        self.loss_weight = loss_weight
        self.layer_weights = _layer_weights(layer_weights)
        self.criterion = criterion
        self.use_input_norm = use_input_norm
        self.range_norm = range_norm
        self.features = _vgg19_features(self.layer_weights)
        _load(self.features, self.layer_weights, vgg_weights)
        self.requires_grad_(False).eval()
        # Constants of the network, not weights: they stay out of the state dict.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """The weighted loss.

        Args:
            sr: (N, 3, H, W) in [0, 1], or in [-1, 1] with ``range_norm``.
            gt: (N, 3, H, W), likewise; no gradient flows into it.

        Returns:
            A scalar in at least float32.

        Raises:
            ValueError: if the shapes differ or the images have not 3 channels.
        """
        if sr.shape != gt.shape or sr.dim() != 4 or sr.shape[1] != 3:
            raise ValueError(
                f"expected sr and gt of one shape (N, 3, H, W), got {tuple(sr.shape)} and {tuple(gt.shape)}"
            )
        with torch.no_grad():
            feats_gt = self.extract(gt)
        feats_sr = self.extract(sr)
        total = sr.new_zeros((), dtype=torch.promote_types(sr.dtype, torch.float32))
        for layer, weight in self.layer_weights.items():
            a, b = at_least_float32(feats_sr[layer], feats_gt[layer])
            difference = a - b
            total = total + weight * (difference.square() if self.criterion == "mse" else difference.abs()).mean()
        return self.loss_weight * total

    def extract(self, image: Tensor) -> dict[str, Tensor]:
        """The features of (N, 3, H, W) at each layer asked for, from the shallowest to the deepest."""
        image = image.to(torch.promote_types(image.dtype, self.mean.dtype))
        if self.range_norm:
            image = (image + 1) / 2
        if self.use_input_norm:
            image = (image - self.mean) / self.std
        wanted = {LAYERS[layer]: layer for layer in self.layer_weights}
        features = {}
        for place, layer in enumerate(self.features):
            image = layer(image)
            if place in wanted:
                features[wanted[place]] = image
        return features

    def train(self, mode: bool = True) -> "VGGPerceptualLoss":
        """Stays in eval mode: the network is a fixed measure."""
        super().train(False)
        return self


def find_vgg19_weights() -> Path | None:
    """The VGG19 weights that this machine has already, or None: nothing is fetched.

    Looked for in the order in which the loss takes them: where BasicSR keeps them, under the working directory, and
    in torch.hub's cache.
    """
    return next((path for path in (UPSTREAM_WEIGHTS, hub_weights()) if path.is_file()), None)


def _layer_weights(layer_weights: str | Mapping[str, float]) -> dict[str, float]:
    if isinstance(layer_weights, str):
        if layer_weights not in LAYER_WEIGHTS:
            raise ValueError(f"layer_weights: expected {', '.join(LAYER_WEIGHTS)} or a mapping, got {layer_weights!r}")
        return dict(LAYER_WEIGHTS[layer_weights])
    unknown = [str(layer) for layer in layer_weights if layer not in LAYERS]
    if unknown or not layer_weights:
        raise ValueError(
            f"layer_weights: expected layers of VGG19, such as conv2_2 or relu5_4, got {', '.join(unknown) or 'none'}"
        )
    return dict(layer_weights)


def _vgg19_features(wanted: Iterable[str]) -> nn.Sequential:
    """The layers of VGG19's features down to the deepest of those wanted, numbered as in torchvision."""
    names = set(wanted)
    layers: list[nn.Module] = []
    channels = 3
    for block, (width, convs) in enumerate(BLOCKS, start=1):
        for conv in range(1, convs + 1):
            # In place, which spares memory and time, but where the loss reads what was there before.
            in_place = f"conv{block}_{conv}" not in names
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=in_place)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[: 1 + max(LAYERS[name] for name in names)])


def vgg19_misfit(weights: object, layers: Iterable[str]) -> str | None:
    """Why a checkpoint's content cannot serve as VGG19's weights down to these layers, or None if it can.

    Args:
        weights: what ``load_tensors`` or ``read_headers`` returned.
        layers: names such as ``conv2_2``.
    """
    channels, place = 3, 0
    deepest = max(LAYERS[layer] for layer in layers)
    for width, convs in BLOCKS:
        for _ in range(convs):
            for kind, shape in (("weight", (width, channels, 3, 3)), ("bias", (width,))):
                name = f"features.{place}.{kind}"
                value = weights.get(name) if isinstance(weights, Mapping) else None
                if not isinstance(value, Tensor):
                    layer = next(layer for layer, number in LAYERS.items() if number == place)
                    return f"no {name} ({layer}); {_ADVICE}"
                if tuple(value.shape) != shape:
                    return f"{name} is {tuple(value.shape)}, not {shape}; {_ADVICE}"
                if not value.is_floating_point():
                    return f"{name} is {str(value.dtype).removeprefix('torch.')}, not float; {_ADVICE}"
            if place + 2 > deepest:
                return None
            channels, place = width, place + 2
        place += 1
    return None


_ADVICE = f"give VGG19 weights with torchvision's key names (features.0.weight), such as {WEIGHTS_NAME}"


def _load(features: nn.Sequential, layers: Iterable[str], path: str | None) -> None:
    """Fill the network from the file at ``path``, or from torchvision's weights."""
    file = Path(path) if path is not None else UPSTREAM_WEIGHTS if UPSTREAM_WEIGHTS.is_file() else _fetch()
    try:
        weights = load_tensors(file)
    except UserError as error:
        why = str(error).removeprefix(f"{printable(str(file))}: ")
        raise UserError(f"{printable(str(file))}: cannot be read as VGG19 weights: {why}; {_ADVICE}") from error
    problem = vgg19_misfit(weights, layers)
    if problem is not None:
        raise UserError(f"{printable(str(file))}: {problem}")
    needed = {name: weights[f"features.{name}"] for name in features.state_dict()}
    bad = first_non_finite(needed, "features")
    if bad is not None:
        raise UserError(f"{printable(str(file))}: {bad} holds values that are not finite; {_ADVICE}")
    features.load_state_dict(needed)


def _fetch() -> Path:
    """The file in torch.hub's cache, fetched if it is not there."""
    file = hub_weights()
    if file.is_file():
        return file
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=WEIGHTS_NAME.rpartition("-")[2].removesuffix(".pth"))
    except Exception as error:  # no network, no disk space, another file there: the remedy is the same
        raise UserError(
            f"VGG19 weights: cannot fetch {url} ({type(error).__name__}: {shown(error)}); "
            f"fetch it elsewhere and put it at {UPSTREAM_WEIGHTS}, or set vgg_weights to a file"
        ) from error
    return file


def hub_weights() -> Path:
    """Where torch.hub keeps torchvision's weights once they are fetched."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
