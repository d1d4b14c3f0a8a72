"""What BasicSR's ``BaseModel`` does badly, mended in one mixin that goes before any model class of the host."""

import inspect
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from basicsr.utils.dist_util import get_dist_info
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from gramgan_plugin.checkpoints.files import describe_file, load_tensors, save_json, save_tensors
from gramgan_plugin.checkpoints.finite import refuse_non_finite
from gramgan_plugin.checkpoints.state_dicts import copy_weights, find_state_dict, match_weights
from gramgan_plugin.errors import OptionError, TrainingStopped, UserError
from gramgan_plugin.models.layout import set_layout
from gramgan_plugin.models.optimizers import build_optimizer, scheduler_class
from gramgan_plugin.models.padding import pad_to_multiple, side_multiple
from gramgan_plugin.models.plain import plain
from gramgan_plugin.models.random_state import get_random_states, set_random_states
from gramgan_plugin.models.restore import restore_optimizers
from gramgan_plugin.models.state_form import check_form
from gramgan_plugin.sections import section
from gramgan_plugin.text import printable, shown

logger = logging.getLogger("basicsr")

CHECKPOINT_FORMAT = 1
# What newer releases of torch call it.
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if _NEW_NAME else "broadcast_buffers"


class HostFixes:
    """Mixin over ``basicsr.models.base_model.BaseModel``: loading, saving, optimizers, schedulers and devices.

    It replaces ``print_network``, ``load_network`` (bare state dicts, any of the usual wrapper keys, a summary of
    what fitted, no unpickling), ``save_network`` and ``save_training_state`` (complete or not there at all; upstream
    gives up on an error and goes on), ``resume_training`` (every tensor checked, settings from the options),
    ``update_learning_rate`` (a warm-up that reaches the full rate), ``test`` (any size of image), ``setup_schedulers``
    and ``get_optimizer`` (any of torch's by name; upstream knows Adam and two schedules) and ``model_to_device``
    (distributed on CPU too). Put it first among the bases::

        type(cls.__name__, (HostFixes, cls), {})
    """

    opt: dict[str, Any]
    device: torch.device
    optimizers: list[Optimizer]
    schedulers: list[Any]
    lq: torch.Tensor
    output: torch.Tensor
    # What a model without one has: a gradient scaler is for fp16.
    scaler: torch.amp.GradScaler | None = None

    # What the loop wants recorded in each checkpoint: numbers, strings, lists and dicts.
    run_facts: Mapping[str, Any] = MappingProxyType({})

    def print_network(self, net: nn.Module) -> None:
        """Log what the network is and how large; upstream logs each of its layers."""
        bare = _bare(net)
        count = sum(parameter.numel() for parameter in bare.parameters())
        logger.info(f"{type(bare).__name__}: {count:,d} parameters, on {self.device}")

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        """Load weights into ``net``.

        Args:
            net: network, possibly wrapped for several GPUs.
            load_path: a ``.pth`` file: BasicSR's (``params``, ``params_ema``) or a bare state dict.
            strict: refuse a file that does not fit tensor for tensor. Otherwise what fits is taken, if that is at
                least half of the network.
            param_key: the key that is asked for. Where the option file asks for it (``path.param_key_g``), the file
                has to have it; where a model does by itself (``params_ema`` for the average), what it has is taken,
                with a warning. None for no preference.

        Raises:
            UserError: if the file cannot be read, has not the key, or does not fit, or a weight is not finite.
        """
        path = self.opt.get("path") or {}
        # Models pass on what stands in the options, or a default, without saying which.
        prefix = "pretrain_network_"
        named = (key.removeprefix(prefix) for key in path if key.startswith(prefix) and path[key] == load_path)
        letter = next(named, "g")
        asked = path.get(f"param_key_{letter}")
        required = f"path.param_key_{letter}" if asked is not None and asked == param_key else None
        content = load_tensors(load_path)
        weights, key = find_state_dict(content, load_path, param_key, required=required, also=asked)
        fit = match_weights(_bare(net), weights, load_path, key)
        refusal = fit.refusal(strict, f"strict_load_{letter}")
        if refusal is not None:
            raise UserError(refusal)
        copy_weights(_bare(net), fit)
        if param_key is not None and key is not None and key != param_key:
            logger.warning(f"{printable(load_path)} has no {shown(param_key)}; {shown(key)} is taken instead")
        (logger.info if fit.complete else logger.warning)(fit.summary())

    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int | str,
        param_key: str | list[str] = "params",
    ) -> None:
        """Write ``models/LABEL_ITERATION.pth`` (``latest`` for -1) in BasicSR's format, whole or not at all.

        Raises:
            TrainingStopped: if a weight is not finite; nothing is written then.
            UserError: if it cannot be written.
        """
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        weights = {key: _bare(one).state_dict() for one, key in zip(nets, keys, strict=True)}
        label = "latest" if current_iter == -1 else current_iter
        path = Path(self.opt["path"]["models"]) / f"{net_label}_{label}.pth"
        refuse_non_finite(weights, path)  # on every process, so that all of them stop for the same reason
        if get_dist_info()[0] != 0:
            return
        on_host = {
            key: {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
            for key, state in weights.items()
        }
        save_tensors(on_host, path)
        self.__dict__.setdefault("_saved_networks", {})[path] = current_iter

    def save_training_state(self, epoch: int, current_iter: int | str) -> None:
        """Write ``training_states/N.state``, then ``N.json``, which makes the checkpoint of iteration N count.

        The state has the optimizers, the schedules, the gradient scaler, the random states of all processes and
        ``run_facts``. ``N.json`` has each file's size and SHA-256, so that a damaged checkpoint is found before it
        is used. Every process has to call this. For -1 and for a name such as ``best``, which are for networks
        alone, nothing is written.

        Raises:
            TrainingStopped: if a number is not finite; nothing is written then.
            UserError: if it cannot be written.
        """
        if current_iter == -1 or isinstance(current_iter, str):
            return
        folder = Path(self.opt["path"]["training_states"])
        state = folder / f"{current_iter}.state"
        refuse_non_finite({"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}, state)
        random_states = get_random_states(self.device)
        if get_dist_info()[0] != 0:
            return
        content = {
            "epoch": int(epoch),
            "iter": int(current_iter),
            "optimizers": [plain(optimizer.state_dict()) for optimizer in self.optimizers],
            "schedulers": [plain(scheduler.state_dict()) for scheduler in self.schedulers],
            "classes": {
                "optimizers": [type(optimizer).__name__ for optimizer in self.optimizers],
                "schedulers": [type(scheduler).__name__ for scheduler in self.schedulers],
            },
            "scaler": plain(self.scaler.state_dict()) if self.scaler is not None else None,
            "own": plain(self.own_state()),
            "random": random_states,
            "run": plain(self.run_facts),
        }
        save_tensors(content, state)
        saved = self.__dict__.get("_saved_networks", {})
        files = [state, *(path for path, iteration in saved.items() if iteration == current_iter)]
        manifest = {
            "format": CHECKPOINT_FORMAT,
            "iter": int(current_iter),
            "run": plain(self.run_facts),
            "files": {f"{path.parent.name}/{path.name}": describe_file(path) for path in files},
        }
        save_json(manifest, folder / f"{current_iter}.json")
        saved.clear()

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Put back what ``save_training_state`` wrote, under the options that the model was built with.

        Settings of optimizers and schedules are those of the options; what differs from the state's is logged, see
        ``gramgan_plugin.models.restore``. Optimizers stay in the form (fused, foreach) in which they were built.
        Upstream's states, which have less, are taken as well.

        Raises:
            ValueError: if the state is of other networks, or damaged.
            OptionError: if a schedule has ended before the iteration of the state.
        """
        check_form(resume_state)
        blocks = {id(value): key.removeprefix("optimizer_") for key, value in vars(self).items() if "optimizer_" in key}
        letters = [blocks.get(id(optimizer), str(number)) for number, optimizer in enumerate(self.optimizers)]
        kept = self.opt["path"].get("ignore_resume_networks") or []
        for line in restore_optimizers(
            {f"train.optim_{x}": optimizer for x, optimizer in zip(letters, self.optimizers, strict=True)},
            self.schedulers,
            resume_state,
            replaced=[f"train.optim_{x}" for x in letters if f"network_{x}" in kept],
        ):
            logger.warning(line)
        if self.scaler is not None and resume_state.get("scaler"):
            self.scaler.load_state_dict(resume_state["scaler"])
        self.load_own_state(section(resume_state, "own"))
        if resume_state.get("random"):
            set_random_states(resume_state["random"], self.device)

    def own_state(self) -> dict[str, Any]:
        """What a model class keeps from one iteration to the next besides networks, optimizers and schedules."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Put back what ``own_state`` gave; an older state has nothing of it.

        Raises:
            ValueError: if it is something else.
        """

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the rates of an iteration: those of the schedules, or before ``warmup_iter`` a linear part of the first.

        Upstream leaves the warm-up's rate in place where a schedule computes each rate from the one before, so that
        with MultiStepLR the full rate is never reached.
        """
        for scheduler in self.schedulers if current_iter > 1 else ():
            for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
            try:
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
        """Enlarge the fed LQ as the model's class does; its sides are padded to what the network takes, SR is cut.

        As upstream's SwinIRModel does it for one network.
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
        """Any optimizer of ``torch.optim`` by its class name, in its fastest form, see ``build_optimizer``."""
        return build_optimizer(optim_type, params, lr=lr, **kwargs)

    def setup_schedulers(self) -> None:
        """One scheduler an optimizer, from ``train.scheduler``: ours, BasicSR's, or any of torch's by class name."""
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

        With ``train.channels_last`` the networks that are known to run in that layout get it. Any other is handed
        its input in the usual one: upstream's discriminators, for one, call ``view`` on their features.
        """
        net = net.to(self.device)
        if (self.opt.get("train") or {}).get("channels_last", False) and not set_layout(net, channels_last=True):
            net.register_forward_pre_hook(_contiguous_input)
        if self.opt["dist"]:
            if self.device.type == "cuda":  # on CPUs there is none
                net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
            options: dict[str, Any] = {
                "device_ids": [torch.cuda.current_device()] if self.device.type == "cuda" else None,
                "find_unused_parameters": self.opt.get("find_unused_parameters", False),
                # BatchNorm's buffers are not copied between ranks in the middle of a step that uses them twice.
                _SYNC_BUFFERS: False,
            }
            return DistributedDataParallel(net, **options)
        return DataParallel(net) if self.opt["num_gpu"] > 1 else net


def _contiguous_input(net: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.contiguous() if isinstance(arg, torch.Tensor) else arg for arg in args)


def _bare(net: nn.Module) -> nn.Module:
    return net.module if isinstance(net, DataParallel | DistributedDataParallel) else net
