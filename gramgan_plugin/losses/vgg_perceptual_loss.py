"""The perceptual loss on features of a VGG19 trained on ImageNet."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gramgan_plugin.archs.vgg19_arch import LAYERS, VGG19Features
from gramgan_plugin.utils.precision import at_least_float32

LAYER_WEIGHTS = {
    "gramgan": {"conv2_2": 1.0, "conv4_2": 0.1, "conv4_4": 0.01},
    "beby": {"conv3_4": 0.125, "conv4_4": 0.25, "conv5_4": 0.5},
}


class VGGPerceptualLoss(nn.Module):
    r"""Perceptual loss L_P on VGG19 features, by default before their activation.

    .. math::
        L_P = \sum_l w_l \, \mathrm{mean} |\phi_l(SR) - \phi_l(GT)|

    The default layers and weights are those of Song et al., Gram-GAN, Sensors 2023, 23(4), 2098; L1 is a
    decision of this project. The network is built down to the deepest layer used, and is never
    trained.

    Args:
        loss_weight: multiplies the result.
        layer_weights: weight of each layer; ``gramgan`` for conv2_2 1.0, conv4_2 0.1, conv4_4 0.01, or
            ``beby`` for conv3_4 0.125, conv4_4 0.25, conv5_4 0.5, or a mapping from layers (``conv5_4``, or
            ``relu5_4`` for after the activation) to weights; None removes a layer that an earlier option file named.
        criterion: ``l1`` or ``mse``.
        use_input_norm: normalise by ImageNet's mean and standard deviation.
        range_norm: map images from [-1, 1] to [0, 1] first.
        vgg_weights: a file of VGG19 weights with torchvision's key names (``features.0.weight``); None for
            ``experiments/pretrained_models/vgg19-dcbb9e9d.pth`` if it exists, else torchvision's file
            from torch.hub's cache, or downloaded (docs/weights.md).

    ``vgg_weights`` is described as in an option file. The loss itself opens no file: the model reads it, and passes the
    tensors (of `gramgan_plugin.checkpoints.vgg19.load_vgg19`).

    Raises:
        ValueError: for an unknown layer or criterion, or without weights.

    Example:
        >>> import torch
        >>> weights = {"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
        >>> loss = VGGPerceptualLoss(layer_weights={"conv1_1": 1.0}, vgg_weights=weights)
        >>> float(loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)))
        0.0
    """

    form = "image"
    # Options that name files, and how the model opens them.
    resources = {"vgg_weights": "vgg19_weights"}  # noqa: RUF012

    def __init__(
        self,
        loss_weight: float = 1.0,
        layer_weights: str | Mapping[str, float | None] = "gramgan",
        criterion: str = "l1",
        use_input_norm: bool = True,
        range_norm: bool = False,
        vgg_weights: Mapping[str, Tensor] | str | None = None,
    ) -> None:
        super().__init__()
        if criterion not in ("l1", "mse"):
            raise ValueError(f"criterion: expected one of l1, mse, got {criterion!r}")
        self.loss_weight = loss_weight
        self.layer_weights = resolve_layer_weights(layer_weights)
        self.criterion = criterion
        if not isinstance(vgg_weights, Mapping):
            raise ValueError(
                "vgg_weights: the loss opens no file; give the tensors that checkpoints.vgg19.load_vgg19 returns, as "
                "GramGANModel does"
            )
        self.network = VGG19Features(self.layer_weights, vgg_weights, use_input_norm, range_norm)

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the weighted loss.

        Args:
            sr: (N, 3, H, W) in [0, 1], or in [-1, 1] with ``range_norm``.
            gt: (N, 3, H, W) in the same range; no gradient flows into it.

        Returns:
            A scalar in at least float32.

        Raises:
            ValueError: if the shapes differ or the images do not have 3 channels.
        """
        if sr.shape != gt.shape or sr.dim() != 4 or sr.shape[1] != 3:
            raise ValueError(
                f"expected sr and gt of one shape (N, 3, H, W), got {tuple(sr.shape)} and {tuple(gt.shape)}"
            )
        with torch.no_grad():
            feats_gt = self.network(gt)
        feats_sr = self.network(sr)
        total = sr.new_zeros((), dtype=torch.promote_types(sr.dtype, torch.float32))
        for layer, weight in self.layer_weights.items():
            a, b = at_least_float32(feats_sr[layer], feats_gt[layer])
            difference = a - b
            total = total + weight * (difference.square() if self.criterion == "mse" else difference.abs()).mean()
        return self.loss_weight * total


def resolve_layer_weights(layer_weights: str | Mapping[str, float | None]) -> dict[str, float]:
    """Return the weight of each layer, from a name in ``LAYER_WEIGHTS`` or as given, without layers of None.

    Raises:
        ValueError: for an unknown name or layer, or none.
    """
    if isinstance(layer_weights, str):
        if layer_weights not in LAYER_WEIGHTS:
            raise ValueError(f"layer_weights: expected {', '.join(LAYER_WEIGHTS)} or a mapping, got {layer_weights!r}")
        return dict(LAYER_WEIGHTS[layer_weights])
    unknown = [str(layer) for layer in layer_weights if layer not in LAYERS]
    weights = {layer: weight for layer, weight in layer_weights.items() if weight is not None}
    if unknown or not weights:
        raise ValueError(
            f"layer_weights: expected layers of VGG19, such as conv2_2 or relu5_4, got {', '.join(unknown) or 'none'}"
        )
    return weights
