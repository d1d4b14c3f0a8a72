"""``GramGANModel``: BasicSR's model class around `gramgan_plugin.steps.gan_step.GANStep`."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.models.sr_model import SRModel
from basicsr.utils import USMSharp
from torch import nn

from gramgan_plugin.building.loss_options import build_extras, build_update, check_average, check_discriminator
from gramgan_plugin.building.mixed_precision import Precision
from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.errors import OptionError
from gramgan_plugin.losses.vgg_perceptual_loss import VGGPerceptualLoss
from gramgan_plugin.models.basicsr_fixes import HostFixes
from gramgan_plugin.models.compilation import Compilation
from gramgan_plugin.models.degradation import DegradedPairs
from gramgan_plugin.models.loss_building import build_loss
from gramgan_plugin.models.measured_speed import choose_speed
from gramgan_plugin.steps.gan_step import GANStep
from gramgan_plugin.steps.step_state import Batch
from gramgan_plugin.steps.terms import BLOCKS, USM_OPTIONS, AdversarialTerm, build_terms, term_mistakes
from gramgan_plugin.steps.update import move_average
from gramgan_plugin.utils.devices import device_in
from gramgan_plugin.utils.sections import section

logger = logging.getLogger("basicsr")


class GramGANModel(HostFixes, SRModel):
    """Trains a generator with any sum of loss terms, with or without a discriminator.

    ``model_type: GramGANModel`` in an option file; docs/options.md lists the keys of its ``train`` section. Gram-GAN,
    ESRGAN and Beby-GAN are option files over it; without ``network_d`` and ``train.gan_opt`` it is the L1 stage that
    comes before them. One call of ``optimize_parameters`` is one iteration of ``GANStep``, under BasicSR's own training
    loop as under ours.
    """

    net_d: nn.Module | None = None
    degraded_pairs: DegradedPairs | None = None

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt["is_train"]:
            self.speed = choose_speed(opt, device_in(opt))
            chosen = {"precision": self.speed.precision, "channels_last": self.speed.channels_last}
            opt = {**opt, "train": {**opt["train"], **chosen}}
        super().__init__(opt)

    def init_training_settings(self) -> None:
        """Build what training needs beyond G: its average, D, the terms, the optimizers and their schedules."""
        train = self.opt["train"]
        for key, mistake in term_mistakes(train, bool(self.opt.get("network_d"))):
            raise OptionError(f"{key}: {mistake}")
        precision = Precision(train.get("precision", "fp32"), self.device)
        self.scaler = precision.scaler
        self.compilation = Compilation(train)
        self.ema_decay = float(train.get("ema_decay") or 0)
        self.net_g.train()
        if self.ema_decay > 0:
            logger.info(f"Averaged weights (EMA) with decay {self.ema_decay}")
            self.net_g_ema = deepcopy(self.get_bare_model(self.net_g)).requires_grad_(False).eval()
            self._load_pretrained("g", self.net_g_ema, "params_ema")
        self.terms = [term.to(self.device) for term in build_terms(train, build_loss)]
        check_average(train, self.terms)
        for loss in (term.loss for term in self.terms if isinstance(term.loss, VGGPerceptualLoss)):
            if train.get("channels_last", False):
                loss.to(memory_format=torch.channels_last)
            self.compilation.apply("vgg", loss)
        self.adversarial: Any = next((term.loss for term in self.terms if isinstance(term, AdversarialTerm)), None)
        if self.opt.get("network_d"):
            self._build_discriminator()
        for letter, net in self.networks().items():
            self.compilation.apply(letter, self.get_bare_model(net))
        self.setup_optimizers()
        self.setup_schedulers()
        self.degraded_pairs = DegradedPairs.from_options(self.opt, self.device)
        self.sharpened = [BLOCKS[block].key for option, block in USM_OPTIONS.items() if self.opt.get(option)]
        self.sharpen = USMSharp().to(self.device)
        self.step = GANStep(
            self.net_g,
            self.net_d,
            self.terms,
            self.adversarial,
            self.update,
            **build_extras(train, build_loss),
            net_g_average=self.net_g_ema if self.ema_decay > 0 else None,
            autocast=precision.autocast,
            diagnose_every=int(section(self.opt, "logger").get("print_freq") or 0),
            share_passes="d" not in self.compilation,
        )
        self.log_dict: dict[str, Any] = {}

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that are trained: ``g``, and ``d`` where there is one."""
        return {"g": self.net_g} | ({"d": self.net_d} if self.net_d is not None else {})

    def setup_optimizers(self) -> None:
        """Make one optimizer for G, and one for D where there is one."""
        train, optimizers = self.opt["train"], {}
        for letter, net in self.networks().items():
            options = dict(train.get(f"optim_{letter}") or {})
            if "type" not in options or "lr" not in options:
                raise OptionError(f"train.optim_{letter}: needs `type` and `lr`")
            parameters = [p for p in net.parameters() if p.requires_grad]
            optimizers[letter] = self.get_optimizer(options.pop("type"), parameters, **options)
            setattr(self, f"optimizer_{letter}", optimizers[letter])
            self.optimizers.append(optimizers[letter])
        self.update = build_update(train, optimizers, self.networks(), self.scaler)

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: uint8 or float images under ``lq`` and ``gt``; a missing LQ is made from GT.

        Blur kernels beside ``gt``, as BasicSR's ``RealESRGANDataset`` has them, make it by the options' degradation.
        """
        batch = to_model_batch(dict(data), self.device)
        if self.degraded_pairs is not None and "lq" not in batch:
            self.lq, self.gt = self.degraded_pairs(batch)
            return
        self.lq = batch["lq"]
        if "gt" in batch:
            self.gt = batch["gt"]

    def optimize_parameters(self, current_iter: int) -> None:
        """Run one iteration (1-based) over the fed batch, then move the average."""
        # Process r of R gets the samples r, r + R, ... of the global batch.
        seed, rank, processes = (int(self.opt.get(key) or 0) for key in ("manual_seed", "rank", "world_size"))
        targets = dict.fromkeys(self.sharpened, self.sharpen(self.gt)) if self.sharpened else {}
        batch = Batch(self.lq, self.gt, int(current_iter), seed, rank, processes or 1, targets)
        state = self.step(batch, int(current_iter))
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)
        self.output, self.log_dict = state.sr, state.log  # on the device: reading a value would wait for it

    def get_current_log(self) -> dict[str, float]:
        """Return the last iteration's values as numbers, averaged over the processes; all of them have to call this.

        Besides, ``loss_scale`` in fp16; ``loss_peak`` and ``loss_peak_iter``, the largest content loss (without one,
        sum of G's terms but the adversarial one) since the last call on this process; ``skipped_steps`` and
        ``held_back_steps`` if any were.

        Raises:
            TrainingStopped: after ``max_nonfinite`` skipped iterations in a row.
        """
        if not self.log_dict:
            return {}
        values = torch.stack([value.detach().float().reshape(()) for value in self.log_dict.values()])
        if self.opt["dist"]:
            # A term's gradient at SR has a part on each process; what remains is the same on all, or a mean.
            of_terms = [key.startswith("grad_") and not key.startswith("grad_norm_") for key in self.log_dict]
            parts = torch.tensor(of_terms, device=values.device)
            values = torch.where(parts, values.square(), values)
            torch.distributed.all_reduce(values)
            values = torch.where(parts, values.sqrt(), values) / torch.distributed.get_world_size()
        log = dict(zip(self.log_dict, values.tolist(), strict=True))
        if self.scaler is not None:
            log["loss_scale"] = self.scaler.get_scale()
        skipped = self.update.report()
        log |= self.update.peak.take() | skipped.log()
        for level, line in skipped.lines(finds_scale=self.scaler is not None):
            logger.log(level, line)
        skipped.stop_after(int(self.opt["train"].get("max_nonfinite") or 50))
        return log

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged weights towards G's: ``ema = ema + (1 - decay) (g - ema)``; buffers are copied.

        After a skipped iteration they stay where they are.
        """
        move_average(self.net_g_ema, self.get_bare_model(self.net_g), decay, self.update.found_inf)

    def test(self) -> None:
        """Enlarge the fed LQ by the averaged weights, or G's where there is no average."""
        with self.compilation.off() if self.is_train else nullcontext():
            super().test()

    def save(self, epoch: int, current_iter: int | str) -> None:
        """Write the networks and, but for ``current_iter`` -1 or a name (``best``), the training state."""
        average = [self.net_g_ema] if self.ema_decay > 0 else []
        self.save_network([self.net_g, *average], "net_g", current_iter, ["params", "params_ema"][: 1 + len(average)])
        if self.net_d is not None:
            self.save_network(self.net_d, "net_d", current_iter)
        self.save_training_state(epoch, current_iter)

    def own_state(self) -> dict[str, Any]:
        """Return how the run computes, the gradient norms that the next are compared with, and the queue of pairs."""
        own: dict[str, Any] = {"speed": self.speed.facts()}
        if self.update.spikes is not None:
            own["grad_norms"] = self.update.spikes.state_dict()
        if self.degraded_pairs is not None:
            own["degraded_pairs"] = self.degraded_pairs.state_dict()
        return own

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Put ``own_state`` back."""
        if self.update.spikes is not None:
            self.update.spikes.load_state_dict(section(state, "grad_norms"))
        if self.degraded_pairs is not None and "degraded_pairs" in state:
            self.degraded_pairs.load_state_dict(section(state, "degraded_pairs"))

    def _build_discriminator(self) -> None:
        self.net_d = self.model_to_device(build_network(self.opt["network_d"]))
        self.print_network(self.net_d)
        self._load_pretrained("d", self.net_d, self.opt["path"].get("param_key_d", "params"))
        check_discriminator(self.opt["train"], self.terms, self.get_bare_model(self.net_d))
        self.net_d.train()

    def _load_pretrained(self, letter: str, net: nn.Module, param_key: str) -> None:
        path = self.opt["path"]
        if path.get(f"pretrain_network_{letter}") is not None:
            strict = path.get(f"strict_load_{letter}", True)
            self.load_network(net, path[f"pretrain_network_{letter}"], strict, param_key)
