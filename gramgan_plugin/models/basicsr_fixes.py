"""Fix the loading, saving, schedules and devices of BasicSR's model classes, with a mixin."""

import inspect
import logging
import warnings
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from gramgan_plugin.building.optimizers import build_optimizer
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.resume import restore_training_state
from gramgan_plugin.checkpoints.safetensors_files import saved_key
from gramgan_plugin.checkpoints.save import save_for_others, save_networks, save_training_state
from gramgan_plugin.checkpoints.state_dicts import copy_weights, find_state_dict, match_weights
from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.checkpoints.weights_cache import resolve_weights
from gramgan_plugin.errors import OptionError, TrainingStopped, UserError
from gramgan_plugin.functional.padding import pad_to_multiple, side_multiple
from gramgan_plugin.models.layout import set_layout
from gramgan_plugin.models.schedules import scheduler_class
from gramgan_plugin.utils.devices import device_in
from gramgan_plugin.utils.text import printable, shown

logger = logging.getLogger("basicsr")

# The name in newer releases of torch.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if _NEW_NAME else "broadcast_buffers"


class HostFixes:
    """Mixin over ``basicsr.models.base_model.BaseModel``: loading, saving, optimizers, schedulers and devices.

    It replaces ``print_network``, ``load_network`` (bare state dicts, the usual wrapper keys, a summary of what fits,
    no unpickling), ``save_network`` and ``save_training_state`` (written completely or not at all; upstream continues
    after an error), ``resume_training`` (checks every tensor, takes settings from the options),
    ``update_learning_rate`` (a warm-up that reaches the full rate), ``test`` (images of any size),
    ``setup_schedulers`` and ``get_optimizer`` (any of torch's by name; upstream has Adam and two schedules) and
    ``model_to_device`` (distributed on CPUs too) and ``device``. Put it first among the bases::

        type(cls.__name__, (HostFixes, cls), {})
    """

    opt: dict[str, Any]
    _device: torch.device
    optimizers: list[Optimizer]
    schedulers: list[Any]
    lq: torch.Tensor
    output: torch.Tensor
    scaler: torch.amp.GradScaler | None = None  # for fp16
    # Facts that the loop records in each checkpoint: numbers, strings, lists and dicts.
    run_facts: Mapping[str, Any] = MappingProxyType({})

    def _set_device(self, value: torch.device) -> None:
        """Take the device of the options where upstream sets its own, whose rule knows CUDA and the CPU alone."""
        self._device = device_in(self.opt)

    device = property(attrgetter("_device"), _set_device)

    def print_network(self, net: nn.Module) -> None:
        """Log the network's class and size; upstream logs each layer."""
        bare = _bare(net)
        count = sum(parameter.numel() for parameter in bare.parameters())
        logger.info(f"{type(bare).__name__}: {count:,d} parameters, on {self.device}")

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load weights into ``net``.

        Args:
            net: network, possibly wrapped for several GPUs.
            load_path: a file of weights in any format of ``checkpoints.formats``, or a name of public weights.
            strict: every tensor must fit. Otherwise the fitting ones are loaded, if at least half of the network fits.
            param_key: the key to load. If the option file names it (``path.param_key_g``), the weights file must have
                it; if the model requests it (``params_ema`` for the average), another key is loaded with a warning.
                None for no preference.

        Raises:
            UserError: if the file cannot be read, lacks the key or does not fit, or a weight is non-finite.
        """
        path = self.opt.get("path") or {}
        # Models pass a key of the options or a default; the argument does not show which.
        prefix = "pretrain_network_"
        named = (key.removeprefix(prefix) for key in path if key.startswith(prefix) and path[key] == load_path)
        letter = next(named, "g")
        asked = path.get(f"param_key_{letter}")
        required = f"path.param_key_{letter}" if asked is not None and asked == param_key else None
        if load_path in WEIGHTS and not Path(load_path).is_file():
            load_path = str(resolve_weights(load_path))
        content = load_tensors(load_path)
        bare = saved_key(load_path)
        weights, key = find_state_dict(content, load_path, param_key, required=required, also=asked, bare=bare)
        adapts = (self.opt.get("train") or {}).get("adapt_channels", False)
        fit = match_weights(_bare(net), weights, load_path, key, adapts)
        refusal = fit.refusal(strict, f"strict_load_{letter}")
        if refusal is not None:
            raise UserError(refusal)
        copy_weights(_bare(net), fit)
        if param_key is not None and key is not None and key != param_key:
            logger.warning(f"{printable(load_path)} has no {shown(param_key)}; {shown(key)} is loaded instead")
        (logger.info if fit.complete else logger.warning)(fit.summary())

    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int | str,
        param_key: str | list[str] = "params",
    ) -> None:
        """Write ``models/LABEL_ITERATION.pth`` (``latest`` for -1) in BasicSR's format, completely or not at all.

        Raises:
            TrainingStopped: if a weight is not finite; nothing is written then.
            UserError: if it cannot be written.
        """
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        label = "latest" if current_iter == -1 else current_iter
        path = Path(self.opt["path"]["models"]) / f"{net_label}_{label}.pth"
        by_key = {key: _bare(one) for one, key in zip(nets, keys, strict=True)}
        save_networks(by_key, path)
        saved = self.__dict__.setdefault("_saved_networks", {})
        saved[path] = current_iter
        if net_label == "net_g" and (self.opt.get("logger") or {}).get("save_checkpoint_format") == "safetensors":
            flat = path.with_suffix(".safetensors")
            save_for_others(by_key, flat, {"network_g": self.opt.get("network_g"), "iteration": current_iter})
            saved[flat] = current_iter

    def save_training_state(self, epoch: int, current_iter: int | str) -> None:
        """Write the training state and the list of a checkpoint's files, see ``checkpoints.save``.

        Nothing is written for -1 or a name such as ``best``, which are for networks alone.

        Raises:
            TrainingStopped: if a moment of an optimizer is not finite; nothing is written then.
            UserError: if it cannot be written.
        """
        if current_iter == -1 or isinstance(current_iter, str):
            return
        state = Path(self.opt["path"]["training_states"]) / f"{current_iter}.state"
        saved = self.__dict__.get("_saved_networks", {})
        networks = [path for path, iteration in saved.items() if iteration == current_iter]
        save_training_state(self, state, int(epoch), int(current_iter), networks)
        saved.clear()

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Restore what ``save_training_state`` wrote, see ``checkpoints.resume.restore_training_state``."""
        restore_training_state(self, resume_state)

    def own_state(self) -> dict[str, Any]:
        """Return the state of a model class besides networks, optimizers and schedules. Every process calls this."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``own_state`` returned; {} for an older state.

        Raises:
            ValueError: if ``state`` is of another form.
        """

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set an iteration's rates from the schedules, or before ``warmup_iter`` linearly from the initial rate.

        Upstream leaves the warm-up's rate in place. Where a schedule computes each rate from the one before
        (MultiStepLR), the full rate is then never reached.
        """
        for scheduler in self.schedulers if current_iter > 1 else ():
            for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
            try:
                with warnings.catch_warnings():  # the optimizer may have had no turn yet
                    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step", UserWarning)
                    scheduler.step()
            except (ValueError, ArithmeticError) as error:
                raise TrainingStopped(
                    f"train.scheduler: {type(scheduler).__name__} has ended ({error}); make it as long as "
                    "train.total_iter, then resume"
                ) from error
        for optimizer in self.optimizers if current_iter < warmup_iter else ():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] / warmup_iter * current_iter

    def test(self) -> None:
        """Enlarge the fed LQ as the model's class does, padded to sides that the network accepts; crop SR.

        Upstream's SwinIRModel does so for one network.
        """
        lq, net = getattr(self, "lq", None), getattr(self, "net_g", None)
        multiple = side_multiple(_bare(net)) if isinstance(net, nn.Module) else 1
        if not isinstance(lq, torch.Tensor) or lq.ndim != 4 or all(side % multiple == 0 for side in lq.shape[-2:]):
            super().test()  # type: ignore[misc]
            return
        self.lq = pad_to_multiple(lq, multiple)
        try:
            super().test()  # type: ignore[misc]
            scale = self.output.shape[-1] // self.lq.shape[-1]
        finally:
            self.lq = lq
        self.output = self.output[..., : scale * lq.shape[-2], : scale * lq.shape[-1]]

    def get_optimizer(self, optim_type: str, params: Iterable[Any], lr: float, **kwargs: Any) -> Optimizer:
        """Return an optimizer of ``torch.optim`` by its class name, see ``build_optimizer``."""
        return build_optimizer(optim_type, params, lr=lr, **kwargs)

    def setup_schedulers(self) -> None:
        """Build a scheduler for each optimizer, from ``train.scheduler``: ours, BasicSR's, or any of torch's."""
        options = dict(self.opt["train"]["scheduler"])
        name = options.pop("type")
        build = scheduler_class(name)
        for optimizer in self.optimizers:
            try:
                self.schedulers.append(build(optimizer, **options))
            except (TypeError, ValueError, AssertionError) as error:
                raise OptionError(f"train.scheduler: {name}: {error}") from error

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the model's device, wrapped for training on several devices as the options say.

        With ``train.channels_last``, networks known to run in that layout are put in it. Any other gets contiguous
        inputs: upstream's discriminators, for example, call ``view`` on their features.
        """
        net = net.to(self.device)
        if (self.opt.get("train") or {}).get("channels_last", False) and not set_layout(net, channels_last=True):
            net.register_forward_pre_hook(_contiguous_input)
        if self.opt["dist"]:
            if self.device.type == "cuda":  # SyncBatchNorm does not run on CPUs
                net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
            options: dict[str, Any] = {
                "device_ids": [torch.cuda.current_device()] if self.device.type == "cuda" else None,
                "find_unused_parameters": self.opt.get("find_unused_parameters", False),
                # BatchNorm's buffers must not be copied between ranks during a step that uses them twice.
                _SYNC_BUFFERS: False,
            }
            return DistributedDataParallel(net, **options)
        return DataParallel(net) if self.opt["num_gpu"] > 1 else net


def _contiguous_input(net: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.contiguous() if isinstance(arg, torch.Tensor) else arg for arg in args)


def _bare(net: nn.Module) -> nn.Module:
    return net.module if isinstance(net, DataParallel | DistributedDataParallel) else net
