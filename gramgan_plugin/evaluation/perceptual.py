"""LPIPS and DISTS as torchmetrics computes them, over backbones that the user has; nothing is downloaded.

The weights learned on people's judgements come with torchmetrics. The backbones are torchvision's, see docs/weights.md.
torchmetrics and torchvision are imported where they are used.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.checkpoints.finite import first_non_finite
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.checkpoints.weights_cache import find, verify
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.evaluation.metric_inputs import cropped_pair
from gramgan_plugin.utils.io import file_sha256
from gramgan_plugin.utils.precision import autocast_off
from gramgan_plugin.utils.text import printable

# LPIPS's word for a backbone -> its name among the public weights and in torchvision, and the shortest side it takes.
BACKBONES = {"alex": ("alexnet", 31), "vgg": ("vgg16", 16)}
_building = Lock()


class _PerceptualMetric:
    """A metric by a network of torchmetrics.

    Attributes:
        backbone: the backbone's name among the public weights.
        backbone_file: the file whose weights it has.
        backbone_sha256: of that file.
    """

    def __init__(self, net: str, weights: Path | None) -> None:
        self.backbone, self._least_side = BACKBONES[net]
        self.backbone_file, self.backbone_sha256 = _backbone_file(self.backbone, weights)
        features = _load_features(self.backbone, self.backbone_file)
        with _building, torch.random.fork_rng(devices=[]):  # they draw random numbers before they load theirs
            self._network = self._build(features).eval().requires_grad_(False)

    def _build(self, features: nn.Module) -> nn.Module:
        raise NotImplementedError

    def _distance(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the distances of float32 images in [0, 1], as any shape of N values."""
        raise NotImplementedError

    def __call__(self, sr: Tensor, gt: Tensor, crop: int = 0) -> Tensor:
        """Return the distance of two batches of images; it is computed in float32.

        Args:
            sr: (N, 3, H, W) uint8 RGB.
            gt: the same shape.
            crop: pixels left out at each border.

        Returns:
            (N,) float64; 0 for equal images, lower is better.

        Raises:
            ValueError: for other tensors or too small images.
        """
        sr, gt = cropped_pair(sr, gt, crop, self._least_side)
        self._network.to(sr.device)
        with torch.inference_mode(), autocast_off(sr.device), _no_tf32():
            distance = self._distance(sr.float() / 255, gt.float() / 255)
        return distance.clone().reshape(len(sr)).double()


class Lpips(_PerceptualMetric):
    """LPIPS, version 0.1 (Zhang et al., CVPR 2018).

    Protocol: RGB in [-1, 1], at full size.

    Args:
        net: ``alex`` or ``vgg``.
        weights: a file with torchvision's AlexNet or VGG16; None for the public one, which must be on this machine.

    Raises:
        ValueError: for another ``net``.
        UserError: if the backbone is missing, damaged or of another network.
    """

    def __init__(self, net: str = "alex", weights: Path | None = None) -> None:
        if net not in BACKBONES:
            raise ValueError(f"net: expected one of {', '.join(BACKBONES)}, got {net!r}")
        self.net = net
        super().__init__(net, weights)

    def _build(self, features: nn.Module) -> nn.Module:
        from torchmetrics.functional.image import lpips

        with _replaced(lpips, "_get_tv_model_features", lambda *_, **__: features):
            return lpips._NoTrainLpips(net=self.net)  # type: ignore[arg-type]

    def _distance(self, sr: Tensor, gt: Tensor) -> Tensor:
        distance: Tensor = self._network(sr, gt, normalize=True)
        return distance


class Dists(_PerceptualMetric):
    """DISTS (Ding et al., IEEE TPAMI 2020).

    Protocol: RGB in [0, 1], at full size.

    Args:
        weights: a file with torchvision's VGG16; None for the public one, which must be on this machine.

    Raises:
        UserError: if the backbone is missing, damaged or of another network.
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__("vgg", weights)

    def _build(self, features: nn.Module) -> nn.Module:
        from torchmetrics.functional.image import dists

        class Whole:
            """What torchmetrics takes of torchvision's network."""

        Whole.features = features  # type: ignore[attr-defined]
        with _replaced(dists, "vgg16", lambda *_, **__: Whole):
            return dists.DISTSNetwork()

    def _distance(self, sr: Tensor, gt: Tensor) -> Tensor:
        distance: Tensor = self._network(sr, gt)
        return distance


def _backbone_file(name: str, weights: Path | None) -> tuple[Path, str]:
    """Return the file of a backbone and its SHA-256; the public one is checked, a path is taken as it is."""
    if weights is not None:
        with file_errors(weights):
            return weights, file_sha256(weights)
    public = WEIGHTS[name]
    path = find(public)
    if path is None:
        raise UserError(f"{name}: the backbone is not on this machine; `basicsr weights fetch {name}` gets it")
    problem = verify(public, path)
    if problem is not None:
        raise UserError(f"{name}: {printable(str(path))}: {problem}; `basicsr weights fetch {name}` replaces it")
    return path, public.sha256


def _load_features(name: str, path: Path) -> nn.Module:
    """Return the convolutions of a torchvision network with the weights of a file.

    Raises:
        UserError: if the file cannot be read, or is of another network.
    """
    import torchvision

    with torch.device("meta"):  # neither memory nor random numbers for what is replaced
        features: nn.Module = getattr(torchvision.models, name)(weights=None).features
    content = load_tensors(path)
    shown = printable(str(path))
    found: dict[str, Tensor] = {}
    for key, wanted in features.state_dict().items():
        value = content.get(f"features.{key}") if isinstance(content, dict) else None
        if not isinstance(value, Tensor) or value.shape != wanted.shape or not value.is_floating_point():
            what = f"no features.{key} of shape {tuple(wanted.shape)}"
            raise UserError(f"{shown}: not torchvision's {name}: {what}; `basicsr weights fetch {name}` gets it")
        found[key] = value.float()
    bad = first_non_finite(found, "features")
    if bad is not None:
        raise UserError(f"{shown}: {bad} holds values that are not finite; `basicsr weights fetch {name}` gets a file")
    features.load_state_dict(found, assign=True)
    return features


@contextmanager
def _replaced(module: Any, name: str, substitute: Callable[..., Any]) -> Iterator[None]:
    """Replace a function of torchmetrics that would download a backbone; AttributeError if it has no such function."""
    original = getattr(module, name)
    setattr(module, name, substitute)
    try:
        yield
    finally:
        setattr(module, name, original)


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Convolve in full float32 on GPUs, so that they give the values of a CPU."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
