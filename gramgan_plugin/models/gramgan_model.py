"""``GramGANModel``: BasicSR's model class around the training step of ``gramgan_plugin.steps``."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from basicsr.models.sr_model import SRModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.errors import OptionError, TrainingStopped
from gramgan_plugin.losses import VGGPerceptualLoss
from gramgan_plugin.models.host import HostFixes
from gramgan_plugin.models.measured_speed import choose_speed
from gramgan_plugin.models.parts import build_loss, check_terms
from gramgan_plugin.models.speed import Compilation, Precision
from gramgan_plugin.sections import section
from gramgan_plugin.steps import Batch, Update, build_terms, combine_logs, discriminator_step, generator_step
from gramgan_plugin.steps.spikes import LossPeak
from gramgan_plugin.steps.terms import BLOCKS, AdversarialTerm

logger = logging.getLogger("basicsr")

# Iterations without a step, one after the other, after which training stops.
MAX_NONFINITE = 50


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
    - ``precision``: ``fp32``, ``bf16``, ``fp16`` (with a gradient scaler) or ``auto``; losses stay in float32.
    - ``channels_last``: run RRDBNet, our discriminator and VGG in the channels-last memory layout; or ``auto``. Both
      autos are timed, see ``gramgan_plugin.models.measured_speed``.
    - ``compile``, ``compile_networks``, ``compile_mode``, ``compile_backend``: see
      ``gramgan_plugin.models.speed.Compilation``.
    - ``accumulate``: go through the fed batch in so many equal parts, one after the other, to need less memory.
      BatchNorm and relativistic means then see a part at a time.
    - ``clip_grad_norm_g``, ``clip_grad_norm_d``: largest norm of each network's gradient.
    - ``max_grad_ratio``: a gradient with a norm of more than so many times its running median is scaled down to that.
    - ``max_nonfinite``: stop after so many iterations in a row that took no step because a loss or gradient was not
      finite. Such an iteration changes nothing: neither weights nor moments, averages or BatchNorm's statistics.
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
        "tf32",
        "compile",
        "compile_networks",
        "compile_mode",
        "compile_backend",
        "accumulate",
        "clip_grad_norm_g",
        "clip_grad_norm_d",
        "max_grad_ratio",
        "max_nonfinite",
        "net_d_iters",
        "net_d_init_iters",
        "total_iter",
        "warmup_iter",
    }

    net_d: nn.Module | None = None

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt["is_train"]:
            device = torch.device("cuda" if opt["num_gpu"] != 0 else "cpu")
            self.speed = choose_speed(opt, device)
            chosen = {"precision": self.speed.precision, "channels_last": self.speed.channels_last}
            opt = {**opt, "train": {**opt["train"], **chosen}}
        super().__init__(opt)

    def init_training_settings(self) -> None:
        """Build what training needs beyond G: its average, D, the terms, the optimizers and their schedules."""
        train = self.opt["train"]
        self.precision = Precision(train.get("precision", "fp32"), self.device)
        self.scaler = self.precision.scaler
        self.compilation = Compilation(train)
        self.accumulate = int(train.get("accumulate") or 1)
        self.max_nonfinite = int(train.get("max_nonfinite") or MAX_NONFINITE)
        self.ema_decay = float(train.get("ema_decay") or 0)
        self.net_d_iters = int(train.get("net_d_iters", 1))
        self.net_d_init_iters = int(train.get("net_d_init_iters", 0))
        self.net_g.train()
        if self.ema_decay > 0:
            self._build_ema()
        self._build_terms()
        if self.opt.get("network_d"):
            self._build_discriminator()
        check_terms(self.terms, self.net_d)
        self.compilation.apply("g", self.get_bare_model(self.net_g))
        self.setup_optimizers()
        self.setup_schedulers()
        self.log_dict: dict[str, Any] = {}

    def setup_optimizers(self) -> None:
        """One optimizer for G, and one for D where there is one."""
        nets = {"g": self.net_g} | ({"d": self.net_d} if self.net_d is not None else {})
        train, optimizers, clip = self.opt["train"], {}, {}
        for letter, net in nets.items():
            options = dict(train.get(f"optim_{letter}") or {})
            if "type" not in options or "lr" not in options:
                raise OptionError(f"train.optim_{letter}: needs `type` and `lr`")
            parameters = [p for p in net.parameters() if p.requires_grad]
            optimizers[letter] = self.get_optimizer(options.pop("type"), parameters, **options)
            setattr(self, f"optimizer_{letter}", optimizers[letter])
            self.optimizers.append(optimizers[letter])
            if train.get(f"clip_grad_norm_{letter}") is not None:
                clip[letter] = float(train[f"clip_grad_norm_{letter}"])
        ratio = train.get("max_grad_ratio")
        self.update = Update(optimizers, nets, clip=clip, scaler=self.scaler, max_grad_ratio=ratio)
        self.peak = LossPeak(self.device)

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: uint8 or float images under ``lq`` and ``gt``; a missing LQ is made from GT."""
        batch = to_model_batch(dict(data), self.device)
        self.lq = batch["lq"]
        if "gt" in batch:
            self.gt = batch["gt"]

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration: G's half (unless it is D's turn alone), D's half, then all steps and the average, or nothing.

        Args:
            current_iter: 1-based.
        """
        iteration = int(current_iter)
        self.update.begin()
        batches = self._batch(iteration).parts(self.accumulate)
        outputs, logs = [], []
        for number, batch in enumerate(batches, start=1):
            with self._gradients_in_step(last=number == len(batches)):
                sr, log = self._run_part(batch, iteration)
            outputs.append(sr)
            logs.append(log)
        self.output = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        log = combine_logs(logs)
        # Its sum is as good as all of it: finite unless a value is not, or is beyond any use.
        finite = {"SR": self.output.sum()} | {key: value for key, value in log.items() if key.startswith("l_")}
        log |= self.update.finish(finite, iteration)
        losses = [log["l_g_pix"]] if "l_g_pix" in log else [log[key] for key in log if key.startswith("l_g_")]
        if losses:
            self.peak.note(torch.stack([loss.detach().reshape(()) for loss in losses]).sum(), iteration)
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)
        # Kept on the device: reading a value waits for it, so that is left to the iterations that log.
        self.log_dict = log

    def get_current_log(self) -> dict[str, float]:
        """The last iteration's values as numbers, averaged over the processes; all of them have to call this.

        Besides, ``loss_scale`` in fp16; ``loss_peak`` and ``loss_peak_iter``, the largest content loss (without one,
        sum of G's terms) since the last call on this process; ``skipped_steps`` and ``held_back_steps`` if any were.

        Raises:
            TrainingStopped: after ``max_nonfinite`` iterations in a row without a step.
        """
        if not self.log_dict:
            return {}
        values = torch.stack([value.detach().float().reshape(()) for value in self.log_dict.values()])
        if self.opt["dist"]:
            torch.distributed.all_reduce(values)
            values /= torch.distributed.get_world_size()
        log = dict(zip(self.log_dict, values.tolist(), strict=True))
        if self.scaler is not None:
            log["loss_scale"] = self.scaler.get_scale()
        log |= self.peak.take()
        skipped = self.update.report()
        if skipped.held_back:
            log["held_back_steps"] = float(skipped.held_back)
            logger.warning(skipped.held_back_line())
        if skipped.count:
            log["skipped_steps"] = float(skipped.count)
            # The gradient scaler of fp16 finds its factor so.
            expected = self.scaler is not None and skipped.first.startswith("grad_norm")
            (logger.info if expected else logger.warning)(str(skipped))
        if skipped.longest >= self.max_nonfinite:
            raise TrainingStopped(
                f"train.max_nonfinite: {skipped.longest} iterations in a row took no step ({skipped}); weights are as "
                "before them. Go on with --auto_resume and a lower learning rate, train.clip_grad_norm_g, or "
                "train.precision: fp32"
            )
        return log

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged weights towards G's: ``ema = ema + (1 - decay) (g - ema)``; buffers are copied.

        After an iteration that took no step they stay where they are.
        """
        net_g = self.get_bare_model(self.net_g)
        with torch.no_grad():
            average = [p for p in self.net_g_ema.parameters() if p.is_floating_point()]
            current = [p.detach() for p in net_g.parameters() if p.is_floating_point()]
            difference = torch._foreach_sub(current, average)
            torch._foreach_mul_(difference, (1.0 - self.update.found_inf) * (1.0 - decay))
            torch._foreach_add_(average, difference)
            for buffer, own in zip(self.net_g_ema.buffers(), net_g.buffers(), strict=True):
                buffer.copy_(own)

    def test(self) -> None:
        """Enlarge the fed LQ by the averaged weights, or G's where there is no average."""
        with self.compilation.off() if self.is_train else nullcontext():
            super().test()

    def save(self, epoch: int, current_iter: int | str) -> None:
        """Write the networks and, but for ``current_iter`` -1 or a name (``best``), the training state."""
        if self.ema_decay > 0:
            self.save_network([self.net_g, self.net_g_ema], "net_g", current_iter, param_key=["params", "params_ema"])
        else:
            self.save_network(self.net_g, "net_g", current_iter)
        if self.net_d is not None:
            self.save_network(self.net_d, "net_d", current_iter)
        self.save_training_state(epoch, current_iter)

    def own_state(self) -> dict[str, Any]:
        """How the run computes, and the gradient norms that the next ones are compared with."""
        state: dict[str, Any] = {"speed": self.speed.facts()}
        if self.update.spikes is not None:
            state["grad_norms"] = self.update.spikes.state_dict()
        return state

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Put ``own_state`` back."""
        if self.update.spikes is not None:
            self.update.spikes.load_state_dict(section(state, "grad_norms"))

    def _batch(self, iteration: int) -> Batch:
        # Process r of R gets the samples r, r + R, ... of the global batch.
        return Batch(
            self.lq,
            self.gt,
            iteration=iteration,
            manual_seed=int(self.opt.get("manual_seed") or 0),
            first_index=int(self.opt.get("rank") or 0),
            stride=int(self.opt.get("world_size") or 1),
        )

    def _run_part(self, batch: Batch, iteration: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Both halves over a part of the batch: SR, and the log."""
        autocast = self.precision.autocast
        scale = self.precision.scale(self.accumulate)
        mask = self.adversarial.mask(batch.gt, batch.lq) if self.adversarial is not None else None
        log: dict[str, Tensor] = {}
        looks = None
        if self._trains_generator(iteration):
            sr, log, looks = generator_step(
                self.net_g,
                self.net_d,
                self.terms,
                batch,
                mask,
                keep_looks="d" not in self.compilation,  # a compiled backward computes all gradients each time
                diagnose=self._logs(iteration),
                autocast=autocast,
                scale=scale,
            )
        else:
            with torch.no_grad(), autocast():
                sr = self.net_g(batch.lq).float()
        if self.net_d is not None:
            log |= discriminator_step(
                self.net_d, self.adversarial, sr, batch.gt, mask, looks=looks, autocast=autocast, scale=scale
            )
        return sr, log

    @contextmanager
    def _gradients_in_step(self, *, last: bool) -> Iterator[None]:
        """Gradients are averaged over processes once, with the last part's."""
        with ExitStack() as stack:
            for net in (self.net_g, self.net_d):
                if not last and isinstance(net, DistributedDataParallel):
                    stack.enter_context(net.no_sync())
            yield

    def _build_ema(self) -> None:
        logger.info(f"Averaged weights (EMA) with decay {self.ema_decay}")
        self.net_g_ema = deepcopy(self.get_bare_model(self.net_g)).requires_grad_(False).eval()
        load_path = self.opt["path"].get("pretrain_network_g")
        if load_path is not None:
            strict = self.opt["path"].get("strict_load_g", True)
            self.load_network(self.net_g_ema, load_path, strict, "params_ema")

    def _build_terms(self) -> None:
        train = self.opt["train"]
        self.terms = [term.to(self.device) for term in build_terms(train, build_loss)]
        if not self.terms:
            raise OptionError("train: no loss is on; give at least one block such as pixel_opt")
        for term in self.terms:
            if isinstance(term.loss, VGGPerceptualLoss):
                if train.get("channels_last", False):
                    term.to(memory_format=torch.channels_last)
                self.compilation.apply("vgg", term.loss)
        self.adversarial: Any = next((term.loss for term in self.terms if isinstance(term, AdversarialTerm)), None)

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
        self.compilation.apply("d", self.get_bare_model(self.net_d))

    def _trains_generator(self, current_iter: int) -> bool:
        if self.net_d is None:
            return True
        return current_iter % self.net_d_iters == 0 and current_iter > self.net_d_init_iters

    def _logs(self, current_iter: int) -> bool:
        frequency = int((self.opt.get("logger") or {}).get("print_freq") or 0)
        return frequency > 0 and current_iter % frequency == 0
