"""``GramGANModel``: BasicSR's model class around the training step of ``gramgan_plugin.steps``."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from torch import nn

from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.errors import OptionError
from gramgan_plugin.losses import VGGPerceptualLoss
from gramgan_plugin.models.host import HostFixes
from gramgan_plugin.registration import lookup
from gramgan_plugin.steps import Batch, build_terms, discriminator_step, generator_step
from gramgan_plugin.steps.terms import BLOCKS, AdversarialTerm, DiscPerceptualTerm

logger = logging.getLogger("basicsr")

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


class GramGANModel(HostFixes, SRModel):
    """Trains a generator with any sum of loss terms, with or without a discriminator.

    ``model_type: GramGANModel`` in an option file. Gram-GAN, ESRGAN and Beby-GAN are option files over it; without
    ``network_d`` and ``train.gan_opt`` it is the L1 stage that comes before them. One call of
    ``optimize_parameters`` is one optimizer step of G, then one of D, under BasicSR's own training loop as under
    ours.

    Options under ``train`` (the losses' own options stand with the losses):

    - ``pixel_opt``, ``perceptual_opt``, ``gram_patch_opt``, ``disc_perceptual_opt``, ``gan_opt``,
      ``back_projection_opt``, ``extra_terms``: the terms, see ``gramgan_plugin.steps.terms``.
    - ``optim_g``, ``optim_d``: ``type`` (any of ``torch.optim``) and its arguments.
    - ``scheduler``: ``type`` and its arguments, see ``gramgan_plugin.models.host.scheduler_class``.
    - ``ema_decay``: decay of the averaged weights ``net_g_ema``; 0 for none.
    - ``precision``: ``fp32`` or ``bf16`` (autocast; losses stay in float32).
    - ``channels_last``: run RRDBNet, our discriminator and VGG in the channels-last memory layout.
    - ``net_d_iters``, ``net_d_init_iters``: G is trained on every ``net_d_iters``-th iteration after the first
      ``net_d_init_iters``; D on all.
    """

    # What `train` may hold; anything else is a mistake. The loop's own keys are among them.
    TRAIN_KEYS = frozenset(BLOCKS) | {
        "extra_terms",
        "optim_g",
        "optim_d",
        "scheduler",
        "ema_decay",
        "precision",
        "channels_last",
        "net_d_iters",
        "net_d_init_iters",
        "total_iter",
        "warmup_iter",
    }

    net_d: nn.Module | None = None

    def init_training_settings(self) -> None:
        """Build what training needs beyond G: its average, D, the terms, the optimizers and their schedules."""
        train = self.opt["train"]
        if train.get("precision", "fp32") not in PRECISIONS:
            raise OptionError(f"train.precision: '{train['precision']}' is not one of {', '.join(PRECISIONS)}")
        self.autocast_dtype = PRECISIONS[train.get("precision", "fp32")]
        self.ema_decay = float(train.get("ema_decay") or 0)
        self.net_d_iters = int(train.get("net_d_iters", 1))
        self.net_d_init_iters = int(train.get("net_d_init_iters", 0))
        self.net_g.train()
        if self.ema_decay > 0:
            self._build_ema()
        self.terms = [term.to(self.device) for term in build_terms(train, self._build_loss)]
        if train.get("channels_last", False):
            for term in self.terms:
                if isinstance(term.loss, VGGPerceptualLoss):
                    term.to(memory_format=torch.channels_last)
        if not self.terms:
            raise OptionError("train: no loss is on; give at least one block such as pixel_opt")
        self.adversarial: Any = next((term.loss for term in self.terms if isinstance(term, AdversarialTerm)), None)
        if self.opt.get("network_d"):
            self._build_discriminator()
        self._check_terms()
        self.setup_optimizers()
        self.setup_schedulers()
        self.log_dict: dict[str, Any] = {}

    def setup_optimizers(self) -> None:
        """One optimizer for G, and one for D where there is one."""
        names = {"optim_g": self.net_g} | ({"optim_d": self.net_d} if self.net_d is not None else {})
        for key, net in names.items():
            options = dict(self.opt["train"].get(key) or {})
            if "type" not in options or "lr" not in options:
                raise OptionError(f"train.{key}: needs `type` and `lr`")
            parameters = [p for p in net.parameters() if p.requires_grad]
            optimizer = self.get_optimizer(options.pop("type"), parameters, **options)
            setattr(self, f"optimizer_{key[-1]}", optimizer)
            self.optimizers.append(optimizer)

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: uint8 or float images under ``lq`` and ``gt``; a missing LQ is made from GT."""
        batch = to_model_batch(dict(data), self.device)
        self.lq = batch["lq"]
        if "gt" in batch:
            self.gt = batch["gt"]

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration: G's step (unless it is D's turn alone), D's step, the average.

        Args:
            current_iter: 1-based.
        """
        batch = Batch(
            self.lq,
            self.gt,
            iteration=int(current_iter),
            manual_seed=int(self.opt.get("manual_seed") or 0),
            first_index=int(self.opt.get("rank") or 0) * len(self.lq),
        )
        mask = self.adversarial.mask(batch.gt, batch.lq) if self.adversarial is not None else None
        log: dict[str, torch.Tensor] = {}
        if self._trains_generator(current_iter):
            self.optimizer_g.zero_grad(set_to_none=True)
            self.output, log = generator_step(
                self.net_g,
                self.net_d,
                self.terms,
                batch,
                mask,
                gradient_norms=self._logs(current_iter),
                autocast=self._autocast,
            )
            self.optimizer_g.step()
        else:
            with torch.no_grad(), self._autocast():
                self.output = self.net_g(self.lq).float()
        if self.net_d is not None:
            self.optimizer_d.zero_grad(set_to_none=True)
            log |= discriminator_step(self.net_d, self.adversarial, self.output, self.gt, mask, autocast=self._autocast)
            self.optimizer_d.step()
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)
        # Kept on the device: reading a value waits for it, so that is left to the iterations that log.
        self.log_dict = log

    def get_current_log(self) -> dict[str, float]:
        """The last iteration's values as numbers, averaged over the processes."""
        return dict(self.reduce_loss_dict(self.log_dict)) if self.log_dict else {}

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged weights towards G's: ``ema = decay * ema + (1 - decay) * g``; buffers are copied."""
        net_g = self.get_bare_model(self.net_g)
        with torch.no_grad():
            average = [p for p in self.net_g_ema.parameters() if p.is_floating_point()]
            current = [p.detach() for p in net_g.parameters() if p.is_floating_point()]
            torch._foreach_lerp_(average, current, 1.0 - decay)
            for buffer, own in zip(self.net_g_ema.buffers(), net_g.buffers(), strict=True):
                buffer.copy_(own)

    def save(self, epoch: int, current_iter: int) -> None:
        """Write the networks and, but for ``current_iter`` -1, the training state."""
        if self.ema_decay > 0:
            self.save_network([self.net_g, self.net_g_ema], "net_g", current_iter, param_key=["params", "params_ema"])
        else:
            self.save_network(self.net_g, "net_g", current_iter)
        if self.net_d is not None:
            self.save_network(self.net_d, "net_d", current_iter)
        self.save_training_state(epoch, current_iter)

    def _build_ema(self) -> None:
        logger.info(f"Averaged weights (EMA) with decay {self.ema_decay}")
        self.net_g_ema = deepcopy(self.get_bare_model(self.net_g)).requires_grad_(False).eval()
        load_path = self.opt["path"].get("pretrain_network_g")
        if load_path is not None:
            strict = self.opt["path"].get("strict_load_g", True)
            self.load_network(self.net_g_ema, load_path, strict, "params_ema")

    def _build_discriminator(self) -> None:
        from basicsr.archs import build_network

        self.net_d = self.model_to_device(build_network(self.opt["network_d"]))
        self.print_network(self.net_d)
        path = self.opt["path"]
        if path.get("pretrain_network_d") is not None:
            self.load_network(
                self.net_d,
                path["pretrain_network_d"],
                path.get("strict_load_d", True),
                path.get("param_key_d", "params"),
            )
        self.net_d.train()

    def _build_loss(self, key: str, block: Mapping[str, Any]) -> nn.Module:
        options = dict(block)
        cls = lookup("loss", options.pop("type", None), f"{key}.type")
        try:
            return cls(**options)
        except (TypeError, ValueError, NotImplementedError, AssertionError) as error:
            raise OptionError(f"{key}: {cls.__name__}: {error}") from error

    def _check_terms(self) -> None:
        """D and the terms that use it must be there together, and D must have the convs that are read."""
        perceptual = [term.loss for term in self.terms if isinstance(term, DiscPerceptualTerm)]
        if self.net_d is None:
            if self.adversarial is not None or perceptual:
                raise OptionError("network_d: missing, but train.gan_opt or train.disc_perceptual_opt needs it")
            return
        if self.adversarial is None:
            raise OptionError("train.gan_opt: missing, so that network_d would not be trained")
        for loss in perceptual:
            net_d = self.get_bare_model(self.net_d)
            if not hasattr(net_d, "resolve_taps"):
                raise OptionError(
                    f"network_d: {type(net_d).__name__} does not give its features, which "
                    "train.disc_perceptual_opt reads; use GramGANDiscriminator, or take that block out"
                )
            try:
                net_d.resolve_taps(loss.taps)
            except ValueError as error:
                raise OptionError(f"train.disc_perceptual_opt.taps: {error}") from error

    def _trains_generator(self, current_iter: int) -> bool:
        if self.net_d is None:
            return True
        return current_iter % self.net_d_iters == 0 and current_iter > self.net_d_init_iters

    def _logs(self, current_iter: int) -> bool:
        frequency = int((self.opt.get("logger") or {}).get("print_freq") or 0)
        return frequency > 0 and current_iter % frequency == 0

    def _autocast(self) -> AbstractContextManager[object]:
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)
