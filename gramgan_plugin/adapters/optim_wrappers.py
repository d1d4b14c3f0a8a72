"""Optimizers of G and D in MMEngine's form; the training step itself makes their steps."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIMIZERS
from torch import nn
from torch.optim import Optimizer

from gramgan_plugin.building.optimizers import build_optimizer
from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import first_line

# What MMEngine's wrappers do, and where GramGAN has it.
ELSEWHERE = {
    "clip_grad": "model.train.clip_grad_norm_g and clip_grad_norm_d",
    "accumulative_counts": "model.train.accumulate",
    "loss_scale": "model.train.precision: fp16",
    "dtype": "model.train.precision",
}
NETWORKS = ("generator", "discriminator")


class GANStepOptimWrapper(OptimWrapper):
    """Holds an optimizer for MMEngine's schedulers, checkpoints and logs, while ``GANStep`` makes its steps.

    ``GANStep`` steps G and D together or neither, clips, accumulates and scales; ``step`` only counts, for MMEngine's
    schedulers.
    """

    def step(self, **kwargs: Any) -> None:
        """Count a step that ``GANStep`` has made."""


class GANOptimWrapperConstructor:
    """Makes the wrappers of ``GramGAN``: ``optim_wrapper=dict(constructor='GANOptimWrapperConstructor', ...)``.

    Args:
        optim_wrapper_cfg: ``generator`` and, where there is one, ``discriminator``: each ``dict(optimizer=dict(
            type='Adam', lr=1e-4, ...))``, of torch.optim (fused where torch can) or of MMEngine's registry.
        paramwise_cfg: not supported.

    Raises:
        OptionError: for settings that ``GramGAN`` has elsewhere, or a network without an optimizer.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        if not isinstance(optim_wrapper_cfg, Mapping):
            raise OptionError("optim_wrapper: expected dict(constructor=..., generator=dict(optimizer=...), ...)")
        if paramwise_cfg:
            raise OptionError("optim_wrapper.paramwise_cfg: not supported with GramGAN; remove it")
        unknown = set(optim_wrapper_cfg) - {*NETWORKS, "constructor"}
        if unknown:
            each = " and ".join(NETWORKS)
            raise OptionError(
                f"optim_wrapper.{min(map(str, unknown))}: unknown; give an `optimizer` for each of {each}"
            )
        self.blocks = {
            name: _checked(name, optim_wrapper_cfg[name]) for name in NETWORKS if optim_wrapper_cfg.get(name)
        }

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """Return a wrapper for each network of a model.

        Raises:
            OptionError: if a network has no optimizer, or an optimizer no network.
        """
        model = model.module if is_model_wrapper(model) else model  # type: ignore[assignment]
        wrappers = {}
        for name in NETWORKS:
            net = getattr(model, name, None)
            if (net is None) != (name not in self.blocks):
                wrong = f"but model.{name} is not given" if net is None else "missing; give its `optimizer`"
                raise OptionError(f"optim_wrapper.{name}: {wrong}")
            if net is not None:
                wrappers[name] = GANStepOptimWrapper(_optimizer(name, self.blocks[name], net))
        return OptimWrapperDict(**wrappers)


def _checked(name: str, block: Any) -> dict[str, Any]:
    where = f"optim_wrapper.{name}"
    if not isinstance(block, Mapping) or not isinstance(block.get("optimizer"), Mapping):
        raise OptionError(f"{where}: expected dict(optimizer=dict(type=..., lr=...))")
    for key, value in block.items():
        if key == "type" and value not in ("OptimWrapper", "GANStepOptimWrapper", OptimWrapper, GANStepOptimWrapper):
            raise OptionError(f"{where}.type: {value}: remove it; mixed precision is model.train.precision")
        if key not in ("type", "optimizer") and value not in (None, 1):
            raise OptionError(f"{where}.{key}: set {ELSEWHERE.get(key, 'nothing of the kind')} instead")
    options = dict(block["optimizer"])
    if "type" not in options or "lr" not in options:
        raise OptionError(f"{where}.optimizer: needs `type` and `lr`")
    return options


def _optimizer(name: str, block: Mapping[str, Any], net: nn.Module) -> Optimizer:
    options = dict(block)
    kind, parameters = options.pop("type"), [p for p in net.parameters() if p.requires_grad]
    if isinstance(kind, str) and hasattr(torch.optim, kind):
        try:
            return build_optimizer(kind, parameters, **options)
        except (TypeError, ValueError) as error:
            raise OptionError(f"optim_wrapper.{name}.optimizer: {kind}: {error}") from error
    try:
        optimizer: Optimizer = OPTIMIZERS.build({**options, "type": kind, "params": parameters})
    except (TypeError, ValueError, KeyError) as error:
        raise OptionError(f"optim_wrapper.{name}.optimizer: {first_line(error)}") from error
    return optimizer
