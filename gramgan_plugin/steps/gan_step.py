"""One iteration of training, from top to bottom: the networks' passes, the terms, both backward passes, the update."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gramgan_plugin.losses.gradient_penalty import GradientPenalty
from gramgan_plugin.steps.balance import SoftmaxBalance
from gramgan_plugin.steps.regularization import InstanceNoise, penalty_of
from gramgan_plugin.steps.step_state import Batch, StepState
from gramgan_plugin.steps.terms import Adversarial, Term
from gramgan_plugin.steps.update import Update
from gramgan_plugin.utils.precision import at_least_float32

Autocast = Callable[[], AbstractContextManager[object]]


class GANStep:
    """Trains G and D for one iteration: ``step(batch, iteration)``.

    D runs once over GT and once over SR. Both passes serve G's terms, and D's own loss as well, since D does not change
    between the two. Only where a pass cannot serve both is D run again: where ``share_passes`` is off, or where a term
    reads D with BatchNorm's running statistics.

    Args:
        net_g: generator, in train mode.
        net_d: discriminator, in train mode, or None for training without one.
        terms: the losses that are summed for G; at least one.
        adversarial: D's loss and the mask; None without a discriminator.
        update: the optimizers' step.
        autocast: makes the context in which forward passes run.
        balance: weights the terms by their values; None adds them as they are.
        penalty: a further loss of D, on its gradient.
        noise: what is added to the images before D sees them.
        net_g_average: the averaged generator, in eval mode, for the terms that read its SR.
        accumulate: into how many equal parts a batch is split, which are run one after the other.
        net_d_every: D is trained on every so many-th iteration.
        net_d_iters: G is trained on every so many-th iteration.
        net_d_init_iters: D is trained alone in so many iterations at first.
        diagnose_every: on every so many-th iteration the log also has what takes more work; 0 for never.
        share_passes: whether D's loss may use the terms' passes (a compiled backward pass can't leave out D's weights).
    """

    def __init__(
        self,
        net_g: nn.Module,
        net_d: nn.Module | None,
        terms: Sequence[Term],
        adversarial: Adversarial | None,
        update: Update,
        *,
        balance: SoftmaxBalance | None = None,
        penalty: GradientPenalty | None = None,
        noise: InstanceNoise | None = None,
        net_g_average: nn.Module | None = None,
        autocast: Autocast = nullcontext,
        accumulate: int = 1,
        net_d_every: int = 1,
        net_d_iters: int = 1,
        net_d_init_iters: int = 0,
        diagnose_every: int = 0,
        share_passes: bool = True,
    ) -> None:
        self.net_g, self.net_d, self.terms, self.adversarial, self.update = net_g, net_d, terms, adversarial, update
        self.balance, self.penalty, self.noise = balance, penalty, noise
        self.net_g_average = net_g_average if any(term.reads_average for term in terms) else None
        self.autocast, self.accumulate, self.net_d_every = autocast, accumulate, net_d_every
        self.net_d_iters, self.net_d_init_iters, self.diagnose_every = net_d_iters, net_d_init_iters, diagnose_every
        self.taps = tuple(tap for term in terms for tap in term.taps)
        self.running = any(term.running_statistics for term in terms)
        self.share_passes = share_passes and net_d is not None and not self.running

    def __call__(self, batch: Batch, iteration: int) -> StepState:
        """Run an iteration: one optimizer step of G (unless it is D's turn alone) and one of D, or none of either.

        Args:
            batch: LQ and GT.
            iteration: 1-based.

        Returns:
            SR, detached, and the log (scalars on the device): each term's value times its ``loss_weight``
            (``l_g_pix``), and with a balance its further weight (``weight_g_pix``); where D is trained, ``l_d_real``
            and ``l_d_fake`` (halves of its loss), ``l_d_penalty``, ``out_d_real`` and ``out_d_fake`` (mean logits),
            ``d_accuracy`` (the share of logits on the right side of the other kind's mean); ``grad_norm_g`` and
            ``grad_norm_d``. Every ``diagnose_every`` iterations also the L2 norm of each term's gradient at SR
            (``grad_g_pix``), ``sr_contrast``, ``mask_share`` and what the terms report.
        """
        self.update.begin()  # zero gradients
        parts = batch.parts(self.accumulate)
        states = []
        for number, part in enumerate(parts, start=1):
            with self._average_gradients(number == len(parts)):
                states.append(self._forward_backward(part, iteration))
        state = _join(batch, states)
        # The sum of SR is as good as all of it: finite unless a value is not, or is beyond any use.
        values = {"SR": state.sr.sum()} | {key: value for key, value in state.log.items() if key.startswith("l_")}
        state.log |= self.update.finish(values, iteration)  # both networks step, or neither
        return state

    def trains_generator(self, iteration: int) -> bool:
        """Return whether G is trained on an iteration (1-based)."""
        alone = self.net_d is None
        return alone or (iteration % self.net_d_iters == 0 and iteration > self.net_d_init_iters)

    def trains_discriminator(self, iteration: int) -> bool:
        """Return whether D is trained on an iteration (1-based)."""
        return self.net_d is not None and (iteration % self.net_d_every == 0 or iteration <= self.net_d_init_iters)

    def _forward_backward(self, batch: Batch, iteration: int) -> StepState:
        """Leave gradients of G and D; return what was computed on the way."""
        trains_g, trains_d = self.trains_generator(iteration), self.trains_discriminator(iteration)
        shared, scale = self.share_passes and trains_d, self.update.scale(self.accumulate)
        with self.autocast(), torch.set_grad_enabled(trains_g):
            (sr,) = at_least_float32(self.net_g(batch.lq))  # (N, C, h, w) -> (N, C, H, W)
        # The terms' graph begins anew at SR, so that D's part of it can outlive G's backward pass.
        state = self._begin(batch, sr.detach().requires_grad_(trains_g), iteration)  # mask, noise
        if trains_g:
            with self.autocast(), nullcontext() if shared else _frozen(self.net_d):
                self._discriminate(state, shared)
                values = {term.key: _scalar(term.key, term(state)) for term in self.terms}
            state.log |= {key: value.detach() for key, value in values.items()}
            values = self._balanced(values, state)
            state.log |= _diagnose(state, values, scale)
            total = torch.stack(list(values.values())).sum() * scale
            (gradient,) = torch.autograd.grad(total, state.sr, retain_graph=shared)
            # Free the graphs of all terms but D's, before G's backward pass needs the memory.
            del values, total
            state.features_gt = state.features_sr = {}
            sr.backward(gradient)
        if self.net_d is not None and self.adversarial is not None and trains_d:
            gt_seen, sr_seen = state.as_d_sees(sr.detach())  # nothing reaches G
            with self.autocast():
                if not (trains_g and shared):
                    state.logits_gt, state.logits_sr = self.net_d(gt_seen), self.net_d(sr_seen)
                l_real, l_fake = self.adversarial.discriminator(*state.logits())
            losses = {"l_d_real": l_real, "l_d_fake": l_fake}
            if self.penalty is not None and (iteration // self.net_d_every) % self.penalty.every == 0:  # D's steps
                losses["l_d_penalty"] = penalty_of(self.penalty, self.net_d, batch, gt_seen, sr_seen)
            (torch.stack(list(losses.values())).sum() * scale).backward()
            state.log |= {key: value.detach() for key, value in losses.items()} | _accuracy(state)
        return StepState(batch, sr.detach(), log=state.log)

    def _begin(self, batch: Batch, sr: Tensor, iteration: int) -> StepState:
        """Return what the terms start from: what D is shown, and where they report."""
        state = StepState(batch, sr)
        if self.adversarial is not None:
            state.mask = self.adversarial.mask(batch.gt, batch.lq)  # (N, 1, H, W)
        if self.noise is not None:
            state.noise = self.noise.draw(batch)
        if sr.requires_grad and self.diagnose_every and iteration % self.diagnose_every == 0:
            state.report = {}
        if sr.requires_grad and self.net_g_average is not None:
            with self.autocast(), torch.no_grad():
                (state.sr_average,) = at_least_float32(self.net_g_average(batch.lq))
        return state

    def _balanced(self, values: dict[str, Tensor], state: StepState) -> dict[str, Tensor]:
        """Return the terms' values times their weights, and log these."""
        if self.balance is None:
            return values
        weights = dict(zip(values, self.balance(torch.stack(list(values.values()))), strict=True))
        state.log |= {key.replace("l_", "weight_", 1): weight.detach() for key, weight in weights.items()}
        return {key: value * weights[key] for key, value in values.items()}

    def _discriminate(self, state: StepState, shared: bool) -> None:
        """Run D over GT and over SR, with the features that the terms read; GT's pass has no graph unless shared."""
        if self.net_d is None:
            return
        gt_seen, sr_seen = state.as_d_sees(state.sr)
        # A foreign discriminator has no taps, and needs none where no term reads features.
        taps = {"taps": self.taps} if self.taps else {}
        with _batchnorm_running(self.net_d) if self.running else nullcontext():
            with torch.set_grad_enabled(shared):
                out_gt = self.net_d(gt_seen, **taps)
            out_sr = self.net_d(sr_seen, **taps)
        state.logits_gt, state.features_gt = out_gt if taps else (out_gt, {})
        state.logits_sr, state.features_sr = out_sr if taps else (out_sr, {})

    @contextmanager
    def _average_gradients(self, now: bool) -> Iterator[None]:
        """Average gradients over processes in this part's backward passes, which the last part's do, or not yet."""
        with ExitStack() as stack:
            for net in (self.net_g, self.net_d):
                if not now and isinstance(net, DistributedDataParallel):
                    stack.enter_context(net.no_sync())
            yield


def _scalar(key: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"{key}: the loss returned {what}, not a scalar")
    return value.reshape(())


def _diagnose(state: StepState, values: dict[str, Tensor], scale: Tensor | float) -> dict[str, Tensor]:
    """Return what an iteration that diagnoses logs besides the terms: nothing in the others."""
    if state.report is None:
        return {}
    found = {key.replace("l_", "grad_", 1): _gradient_norm(value, state.sr, scale) for key, value in values.items()}
    found |= state.report
    sr, gt = state.sr.detach().flatten(1), state.batch.gt.flatten(1).float()
    found["sr_contrast"] = (sr.std(dim=1) / gt.std(dim=1).clamp_min(1e-3)).mean()
    if state.mask is not None:
        found["mask_share"] = state.mask.float().mean()
    return found


def _gradient_norm(value: Tensor, sr: Tensor, scale: Tensor | float) -> Tensor:
    if not value.requires_grad:
        return sr.new_zeros(())
    # In fp16 the gradient would vanish on its way without the scale.
    (gradient,) = torch.autograd.grad(value * scale, sr, retain_graph=True, allow_unused=True)
    return sr.new_zeros(()) if gradient is None else gradient.norm() / scale


def _accuracy(state: StepState) -> dict[str, Tensor]:
    real, fake = (logits.detach().float() for logits in state.logits())
    right = (real > fake.mean()).float().mean() + (fake < real.mean()).float().mean()
    return {"out_d_real": real.mean(), "out_d_fake": fake.mean(), "d_accuracy": right / 2}


def _join(batch: Batch, states: list[StepState]) -> StepState:
    """Join the equal parts of a batch: SR; means of the logs, and for gradients at SR the norm over all parts."""
    number, log = len(states), {}
    if number == 1:
        return states[0]
    for key in states[0].log:
        values = torch.stack([state.log[key] for state in states])
        # Each part's loss counts 1 / number, and so does its gradient.
        log[key] = values.norm() / number if key.startswith("grad_") else values.mean()
    return StepState(batch, torch.cat([state.sr for state in states]), log=log)


@contextmanager
def _frozen(net: nn.Module | None) -> Iterator[None]:
    """Compute no gradients for the parameters of ``net`` while G trains through it."""
    parameters = [p for p in net.parameters() if p.requires_grad] if net is not None else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _batchnorm_running(net: nn.Module) -> Iterator[None]:
    """Use BatchNorm's running statistics, which stay as they are."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
