"""Registers this plugin's classes with MMEngine, where MMagic finds them: name this module in ``custom_imports``.

In MMEngine's root registries are ``GramGAN``, all our networks and losses, ``RRDBNet`` (in MMagic's scope, its own
comes first; both have the same tensors), ``PairedSRDataset``, ``GANStepOptimWrapper``, ``GANOptimWrapperConstructor``
and ``CosineRestartWarmupLR``.
"""

from typing import Any

from mmengine import registry

from gramgan_plugin import archs, losses
from gramgan_plugin.adapters.gramgan import GramGAN
from gramgan_plugin.adapters.optim_wrappers import GANOptimWrapperConstructor, GANStepOptimWrapper
from gramgan_plugin.adapters.restart_schedule import CosineRestartWarmupLR
from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset

__all__ = ["GramGAN"]


class FlatPairedSRDataset(PairedSRDataset):
    """``PairedSRDataset`` with its options as arguments, as MMEngine's configurations give them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(options)


def register_all() -> None:
    """Put our classes into MMEngine's root registries. Running it again is harmless."""
    models = [GramGAN, RRDBNet]
    models += [getattr(package, name) for package in (archs, losses) for name in package.__all__]
    for target, classes in (
        (registry.MODELS, models),
        (registry.OPTIM_WRAPPERS, [GANStepOptimWrapper]),
        (registry.OPTIM_WRAPPER_CONSTRUCTORS, [GANOptimWrapperConstructor]),
        (registry.PARAM_SCHEDULERS, [CosineRestartWarmupLR]),
    ):
        for cls in classes:
            target.register_module(module=cls, force=True)
    registry.DATASETS.register_module(name="PairedSRDataset", module=FlatPairedSRDataset, force=True)


register_all()
