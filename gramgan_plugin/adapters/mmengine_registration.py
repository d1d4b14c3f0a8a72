"""Registers this plugin's classes with MMEngine, where MMagic finds them: name this module in ``custom_imports``.

In MMEngine's root registries are ``GramGAN``, all our networks and losses, ``RRDBNet`` and ``L1Loss`` (in MMagic's
scope its own come first; they have the same tensors and arguments), ``PairedSRDataset``, ``StreamedSRDataset``,
``GANStepOptimWrapper``, ``GANOptimWrapperConstructor`` and ``CosineRestartWarmupLR``.
"""

from typing import Any

from mmengine import registry
from torch import Tensor, nn
from torch.nn import functional as F

from gramgan_plugin import archs, losses
from gramgan_plugin.adapters.gramgan import GramGAN
from gramgan_plugin.adapters.optim_wrappers import GANOptimWrapperConstructor, GANStepOptimWrapper
from gramgan_plugin.adapters.restart_schedule import CosineRestartWarmupLR
from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.data.streamed_sr_dataset import StreamedSRDataset

__all__ = ["GramGAN"]


class L1Loss(nn.Module):
    """The weighted mean absolute difference, with the arguments of BasicSR's and MMagic's.

    Args:
        loss_weight: multiplies the result.
        reduction: ``mean`` or ``sum`` over all values.

    Raises:
        ValueError: for another ``reduction``.
    """

    form = "image"

    def __init__(self, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: {reduction!r} is not one of mean, sum")
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the loss of two images of equal shape, (N, C, H, W) in [0, 1]."""
        return self.loss_weight * F.l1_loss(sr, gt, reduction=self.reduction)


class FlatPairedSRDataset(PairedSRDataset):
    """``PairedSRDataset`` with its options as arguments, as MMEngine's configurations give them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(_plain(options))


class FlatStreamedSRDataset(StreamedSRDataset):
    """``StreamedSRDataset`` likewise; MMEngine's samplers, unlike ours, do not keep to few shards at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(_plain(options))


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options without MMEngine's own kinds of dict and list."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in options.items()}


def register_all() -> None:
    """Put our classes into MMEngine's root registries. Running it again is harmless."""
    models = [GramGAN, RRDBNet, L1Loss]
    models += [getattr(package, name) for package in (archs, losses) for name in package.__all__]
    for target, classes in (
        (registry.MODELS, models),
        (registry.OPTIM_WRAPPERS, [GANStepOptimWrapper]),
        (registry.OPTIM_WRAPPER_CONSTRUCTORS, [GANOptimWrapperConstructor]),
        (registry.PARAM_SCHEDULERS, [CosineRestartWarmupLR]),
    ):
        for cls in classes:
            target.register_module(module=cls, force=True)
    for name, dataset in (("PairedSRDataset", FlatPairedSRDataset), ("StreamedSRDataset", FlatStreamedSRDataset)):
        registry.DATASETS.register_module(name=name, module=dataset, force=True)


register_all()
