"""``GramGAN``: a model for MMEngine's runner, and so for MMagic, around `gramgan_plugin.steps.gan_step.GANStep`."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine import MessageHub
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODELS
from torch import Tensor, nn

from gramgan_plugin.adapters.optim_wrappers import GANStepOptimWrapper
from gramgan_plugin.building.loss_options import (
    REFUSALS,
    build_extras,
    build_update,
    check_average,
    check_discriminator,
    construct_loss,
)
from gramgan_plugin.building.mixed_precision import Precision
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.safetensors_files import is_safetensors
from gramgan_plugin.checkpoints.state_dicts import copy_weights, match_weights
from gramgan_plugin.checkpoints.weights_cache import resolve_weights
from gramgan_plugin.checkpoints.weights_file import read_weights
from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.functional.padding import pad_to_multiple, side_multiple
from gramgan_plugin.steps.gan_step import GANStep
from gramgan_plugin.steps.step_state import Batch
from gramgan_plugin.steps.terms import BLOCKS, PENALTY, USM_OPTIONS, AdversarialTerm, build_terms, term_mistakes
from gramgan_plugin.steps.update import move_average
from gramgan_plugin.utils.text import did_you_mean, first_line, shown_value

# Keys of ``train`` that are read here; they mean what they mean in an option file.
KNOWN = {
    *BLOCKS,
    *("extra_terms", PENALTY, "balance", "instance_noise", "ema_decay", "precision", "accumulate", "max_nonfinite"),
    *("net_d_every", "net_d_iters", "net_d_init_iters", "clip_grad_norm_g", "clip_grad_norm_d", "max_grad_ratio"),
}
NOT_HERE = dict.fromkeys(USM_OPTIONS, "BasicSR sharpens GT; not available with MMEngine") | {
    "optim_g": "give it as optim_wrapper.generator",
    "optim_d": "give it as optim_wrapper.discriminator",
    "scheduler": "give it as param_scheduler",
    "total_iter": "give it as train_cfg.max_iters",
}
LETTERS = {"generator": "g", "discriminator": "d"}
REPORT_EVERY = 100  # iterations; counting skipped ones waits for the device
SAFE_TORCH = (2, 6)  # before, torch.load(weights_only=True) could be made to run code (CVE-2025-32434)


class GramGAN(BaseModel):
    """Trains a generator with any sum of our and MMagic's loss terms, with or without a discriminator.

    ``train_step`` is one iteration of ``GANStep``, the same as ``GramGANModel``'s under BasicSR. Batches come from our
    ``PairedSRDataset`` (with ``collate_fn=dict(type='default_collate')``) or from MMagic's datasets, whose
    ``data_preprocessor`` must then map images to [0, 1] in RGB.

    Args:
        generator: a network, or its configuration.
        discriminator: likewise; None for training without one.
        train: the option blocks of the losses (``pixel_opt``, ``gram_patch_opt``, ...), ``ema_decay``, ``precision``,
            ``accumulate`` and more, as in the ``train`` section of an option file; docs/options.md explains them.
            Losses are looked for in MMEngine's registry, in the current scope first.
        pretrained: a file of weights for the generator, of any ESRGAN (safetensors only on torch before 2.6), or the
            name of public ones, such as ``4x-RRDB-Lite``.
        manual_seed: of the random candidates of the texture loss; with an iteration and a sample it determines them.
        data_preprocessor: for MMagic's datasets ``dict(type='DataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255])``.
        init_cfg: of MMEngine.

    Raises:
        OptionError: for options that are unknown, missing or do not fit together.
    """

    def __init__(
        self,
        generator: nn.Module | Mapping[str, Any],
        discriminator: nn.Module | Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        manual_seed: int = 0,
        data_preprocessor: nn.Module | dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        _check_preprocessor(self.data_preprocessor)
        if train is not None and not isinstance(train, Mapping):
            raise OptionError(f"model.train: expected a dict of option blocks, got {shown_value(train)}")
        self.options = dict(train or {})
        _check_known(self.options)
        self.generator = _built("model.generator", generator)
        self.discriminator: nn.Module | None = None
        if discriminator is not None:
            self.discriminator = _built("model.discriminator", discriminator)
        self.pretrained, self.manual_seed = pretrained, manual_seed
        self.ema_decay = float(self.options.get("ema_decay") or 0)
        if self.ema_decay > 0:
            self.generator_ema = deepcopy(self.generator).requires_grad_(False).eval()
        self.iteration = 0
        self.step: GANStep | None = None  # built with the first batch, when the networks are on their device
        if self.options:
            for key, mistake in term_mistakes(self.options, self.discriminator is not None):
                raise OptionError(f"model.{key}: {mistake}")

    def init_weights(self) -> None:
        """Initialise the networks, load ``pretrained``, and begin the average with the generator's weights."""
        super().init_weights()
        if self.pretrained is not None:
            _load(_bare(self.generator), self.pretrained)
        if self.ema_decay > 0:
            self.generator_ema.load_state_dict(_bare(self.generator).state_dict())

    def train(self, mode: bool = True) -> "GramGAN":
        """Set the mode of the networks; the average stays in eval mode."""
        super().train(mode)
        if self.ema_decay > 0:
            self.generator_ema.eval()
        return self

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Run one iteration over a batch.

        Args:
            data: of ``PairedSRDataset`` or of MMagic's datasets.
            optim_wrapper: of ``GANOptimWrapperConstructor``.

        Returns:
            ``GANStep``'s log, scalars on the device.

        Raises:
            OptionError: if ``optim_wrapper`` is of another kind.
            TrainingStopped: after ``max_nonfinite`` skipped iterations in a row.
        """
        lq, gt, _ = self._images(data, training=True)
        if self.step is None:
            self.step = self._build_step(optim_wrapper, lq.device)
        before = MessageHub.get_current_instance().get_info("iter")  # None without a runner
        self.iteration = iteration = (self.iteration if before is None else int(before)) + 1
        batch = Batch(lq, gt, iteration, self.manual_seed, get_rank(), get_world_size())
        state = self.step(batch, iteration)
        if self.ema_decay > 0:
            move_average(self.generator_ema, _bare(self.generator), self.ema_decay, self.step.update.found_inf)
        for wrapper in optim_wrapper.values():
            wrapper.step()
        if iteration % REPORT_EVERY == 0:
            skipped = self.step.update.report()
            for level, line in skipped.lines(finds_scale=self.step.update.scaler is not None):
                print_log(line, "current", level)
            skipped.stop_after(int(self.options.get("max_nonfinite") or 50))
        return state.log

    @torch.no_grad()
    def val_step(self, data: Any) -> list[Any]:
        """Upscale a batch, for MMagic's metrics.

        Args:
            data: of ``PairedSRDataset`` in a phase but ``train``, or of MMagic's datasets; with GT.

        Returns:
            A list of N: for MMagic's datasets their ``DataSample`` with ``output.pred_img``; for ours dicts of the same
            form with ``gt_img`` and ``gt_path``. Images are (C, H, W), levels in [0, 255], channels in the order BGR,
            as MMagic's metrics take them.

        Raises:
            OptionError: for a batch of MMagic's without a ``data_preprocessor``.
        """
        lq, gt, samples = self._images(data, training=False)
        if samples is not None:
            found: list[Any] = self(lq, samples, mode="predict")
            return found
        levels = [_bgr_levels(image) for image in (self(lq), gt)]
        paths = data.get("gt_path") or [""] * len(lq)
        return [
            {"output": {"pred_img": sr}, "gt_img": of_gt, "gt_path": path}
            for sr, of_gt, path in zip(*levels, paths, strict=True)
        ]

    def test_step(self, data: Any) -> list[Any]:
        """Do as ``val_step`` does."""
        return self.val_step(data)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Upscale images by the averaged weights, or G's where there is no average.

        Args:
            inputs: (N, C, h, w) in [0, 1].
            data_samples: MMagic's, of the batch, for ``predict``.
            mode: ``tensor`` or ``predict``.

        Returns:
            (N, C, H, W), or for ``predict`` the samples with ``output.pred_img``, as MMagic has them.

        Raises:
            ValueError: for another mode; training is ``train_step``.
        """
        if mode not in ("tensor", "predict"):
            raise ValueError(f"mode: {mode!r} is not one of tensor, predict; training is train_step")
        net = self.generator_ema if self.ema_decay > 0 else self.generator
        padded = pad_to_multiple(inputs, side_multiple(_bare(net)))
        sr = net(padded)
        scale = sr.shape[-1] // padded.shape[-1]
        sr = sr[..., : scale * inputs.shape[-2], : scale * inputs.shape[-1]]
        if mode == "tensor":
            return sr
        undo = self.data_preprocessor.destruct
        data_samples.set_tensor_data({"input": undo(inputs, data_samples, "img")})
        samples = data_samples.split()
        for sample, image in zip(samples, undo(sr, data_samples), strict=True):
            sample.output = type(sample)(pred_img=image.cpu())
        return samples

    def _images(self, data: Any, training: bool) -> tuple[Any, Any, Any]:
        """Return LQ and GT in [0, 1] on the model's device, and MMagic's samples, if it is a batch of MMagic's."""
        device = next(self.generator.parameters()).device
        if isinstance(data, Mapping) and "gt" in data:
            batch = to_model_batch(dict(data), device)
            return batch["lq"], batch["gt"], None
        data = self.data_preprocessor(data, training)
        samples = data["data_samples"]
        if isinstance(samples, list):
            raise OptionError(
                "model.data_preprocessor: missing; for batches of MMagic's datasets give "
                "dict(type='DataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255])"
            )
        return data["inputs"], getattr(samples, "gt_img", None), samples

    def _build_step(self, optim_wrapper: OptimWrapperDict, device: torch.device) -> GANStep:
        """Build the step over the networks as the runner has wrapped them."""
        wrappers = dict(optim_wrapper.items()) if isinstance(optim_wrapper, OptimWrapperDict) else {}
        if not wrappers or not all(isinstance(wrapper, GANStepOptimWrapper) for wrapper in wrappers.values()):
            raise OptionError("optim_wrapper: give constructor='GANOptimWrapperConstructor'")
        terms = [term.to(device) for term in build_terms(self.options, _build_loss)]
        check_average(self.options, terms)
        if self.discriminator is not None:
            check_discriminator(self.options, terms, _bare(self.discriminator))
        precision = Precision(self.options.get("precision", "fp32"), device)
        networks = {LETTERS[name]: getattr(self, name) for name in wrappers}
        optimizers = {LETTERS[name]: wrapper.optimizer for name, wrapper in wrappers.items()}
        return GANStep(
            self.generator,
            self.discriminator,
            terms,
            next((term.loss for term in terms if isinstance(term, AdversarialTerm)), None),
            build_update(self.options, optimizers, networks, precision.scaler),
            **build_extras(self.options, _build_loss),
            net_g_average=self.generator_ema if self.ema_decay > 0 else None,
            autocast=precision.autocast,
        )


def _built(key: str, net: Any) -> nn.Module:
    """Build a network from its configuration.

    Raises:
        OptionError: if it names none, or one that does not take these options.
    """
    if isinstance(net, nn.Module):
        return net
    if not isinstance(net, Mapping) or "type" not in net:
        raise OptionError(f"{key}: expected a network or dict(type=..., ...), got {shown_value(net)}")
    try:
        built: nn.Module = MODELS.build(net)
    except (*REFUSALS, KeyError) as error:
        raise OptionError(f"{key}: {first_line(error)}") from error
    return built


def _build_loss(key: str, block: Mapping[str, Any]) -> nn.Module:
    """Build a loss of MMEngine's registry, ours with the files that its options name opened."""
    if not isinstance(block, Mapping) or "type" not in block:
        raise OptionError(f"model.{key}: expected dict(type=..., ...), got {shown_value(block)}")
    options = dict(block)
    name = options.pop("type")
    with MODELS.switch_scope_and_registry(None) as registry:  # of the current scope, such as mmagic, and its parents
        cls = registry.get(name) if isinstance(name, str) else name
    if not isinstance(cls, type):
        raise OptionError(
            f"model.{key}.type: no loss {name!r} in MMEngine's registry{did_you_mean(str(name), MODELS.module_dict)}"
        )
    return construct_loss(f"model.{key}", cls, options)


def _load(net: nn.Module, path: str) -> None:
    """Load a file of weights.

    Raises:
        UserError: if it cannot be read safely, or does not fit.
    """
    if path in WEIGHTS and not Path(path).is_file():
        path = str(resolve_weights(path))
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < SAFE_TORCH:
        with Path(path).open("rb") as stream:
            if not is_safetensors(stream.read(10)):
                raise UserError(
                    f"{path}: torch {torch.__version__} cannot read it safely; convert it elsewhere by "
                    "`basicsr convert FILE --to safetensors`"
                )
    file = read_weights(path)
    fit = match_weights(net, file.state, path, file.key, False)
    refusal = fit.refusal(True)
    if refusal is not None:
        raise UserError(refusal)
    copy_weights(net, fit)
    print_log(fit.summary(), "current")


def _check_known(train: Mapping[str, Any]) -> None:
    for key in train:
        if key not in KNOWN:
            raise OptionError(f"model.train.{key}: {NOT_HERE.get(key) or f'unknown option{did_you_mean(key, KNOWN)}'}")


def _check_preprocessor(preprocessor: nn.Module) -> None:
    for name, wanted in (("mean", 0.0), ("std", 255.0)):
        value = getattr(preprocessor, name, None)
        if isinstance(value, Tensor) and not bool((value == wanted).all()):
            raise OptionError(f"model.data_preprocessor.{name}: expected {wanted:g}, so that images are in [0, 1]")


def _bare(net: Any) -> Any:
    return net.module if is_model_wrapper(net) else net


def _bgr_levels(images: Tensor) -> Tensor:
    """Return 8-bit levels of images in [0, 1], as floats on the CPU, channels reversed."""
    return (images.clamp(0, 1) * 255).round().flip(1).cpu()
