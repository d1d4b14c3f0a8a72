"""One iteration: the generator's half and the discriminator's half. Each runs backward; neither steps an optimizer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gramgan_plugin.steps.terms import Adversarial, Batch, DiscPerceptualTerm, Pass, Term

Autocast = Callable[[], AbstractContextManager[object]]


class Looks(NamedTuple):
    """What D made of (masked) GT and SR, with the graph back to D's parameters: logits (N, ...)."""

    real: Tensor
    fake: Tensor


class Generated(NamedTuple):
    """What the generator's half leaves.

    Attributes:
        sr: (N, C, H, W), detached, in at least float32.
        log: scalars on the device.
        looks: D's answers for the discriminator's half, if they were asked for.
    """

    sr: Tensor
    log: dict[str, Tensor]
    looks: Looks | None


def generator_step(
    net_g: nn.Module,
    net_d: nn.Module | None,
    terms: Sequence[Term],
    batch: Batch,
    mask: Tensor | None = None,
    *,
    keep_looks: bool = False,
    diagnose: bool = False,
    autocast: Autocast = nullcontext,
    scale: Tensor | float = 1.0,
) -> Generated:
    """Run G, sum the terms and run backward into G's parameters.

    D runs once over SR and once over GT, and both passes serve the adversarial and the perceptual term. D's
    parameters get no gradient. Since D does not change between the two halves of an iteration, its answers can serve
    the second half as well: ``keep_looks`` then spares it two of its four passes.

    Args:
        net_g: generator, in train mode.
        net_d: discriminator, in train mode, or None for training without one.
        terms: what to sum; at least one.
        batch: LQ and GT.
        mask: (N, 1, H, W) of 0 and 1, put on SR and GT before D sees them, or None.
        keep_looks: build D's graph in these passes and hand it out for ``discriminator_step``. Not possible where
            the perceptual term reads D by BatchNorm's running statistics: ``looks`` is None then.
        diagnose: also measure what takes more work: each term's gradient at SR (a backward through each term), the
            candidates chosen, the contrast of SR, the share of pixels that D sees.
        autocast: makes the context in which forward passes run.
        scale: what the sum is multiplied with before backward, such as a gradient scaler's factor. The log is
            without it.

    Returns:
        SR, the log and D's answers. The log has each term's weighted value under its key (``l_g_pix``) and, with
        ``diagnose``, the L2 norm of its gradient at SR (``grad_g_pix``), ``sr_contrast``, ``mask_share`` and what
        the terms report.
    """
    with autocast():
        sr = net_g(batch.lq)
        sr = sr.to(torch.promote_types(sr.dtype, torch.float32))
    # The terms' graph ends here, so that D's part of it can outlive G's.
    leaf = sr.detach().requires_grad_()
    shared = keep_looks and net_d is not None and not _reads_running_statistics(terms)
    report: dict[str, Tensor] | None = {} if diagnose else None
    with autocast(), nullcontext() if shared else _frozen(net_d):
        step, looks = _see(net_d, leaf, batch, mask, terms, shared, report)
        values = {term.key: term(step) for term in terms}
    log = {key: value.detach() for key, value in values.items()}
    if report is not None:
        for key, value in values.items():
            log[key.replace("l_", "grad_", 1)] = _gradient_norm(value, leaf, scale)
        log |= report | _diagnose(leaf.detach(), batch.gt, mask)
    total = torch.stack([value.reshape(()) for value in values.values()]).sum() * scale
    (gradient,) = torch.autograd.grad(total, leaf, retain_graph=shared)
    del step, values, total  # and with them the graphs of all terms but D's, before G's backward needs the memory
    sr.backward(gradient)
    return Generated(sr.detach(), log, looks)


def discriminator_step(
    net_d: nn.Module,
    adversarial: Adversarial,
    sr: Tensor,
    gt: Tensor,
    mask: Tensor | None = None,
    *,
    looks: Looks | None = None,
    autocast: Autocast = nullcontext,
    scale: Tensor | float = 1.0,
) -> dict[str, Tensor]:
    """Run D over GT and over SR, each by its own batch statistics, and run backward into D's parameters.

    Args:
        net_d: discriminator, in train mode.
        adversarial: the loss.
        sr: (N, C, H, W) without graph; nothing reaches G.
        gt: (N, C, H, W).
        mask: as in ``generator_step``.
        looks: D's answers from ``generator_step``, if D has not changed since; D is then not run again.
        autocast: as in ``generator_step``.
        scale: as in ``generator_step``.

    Returns:
        ``l_d_real`` and ``l_d_fake``, the halves that were summed; ``out_d_real`` and ``out_d_fake``, the mean
        logits; ``d_accuracy``, the share of answers on the right side of the other kind's mean. Scalars on the
        device.
    """
    with autocast():
        if looks is None:
            looks = Looks(net_d(_masked(gt, mask)), net_d(_masked(sr.detach(), mask)))
        l_real, l_fake = adversarial.discriminator(looks.real, looks.fake)
    ((l_real + l_fake) * scale).backward()
    real, fake = looks.real.detach().float(), looks.fake.detach().float()
    right = (real > fake.mean()).float().mean() + (fake < real.mean()).float().mean()
    return {
        "l_d_real": l_real.detach(),
        "l_d_fake": l_fake.detach(),
        "out_d_real": real.mean(),
        "out_d_fake": fake.mean(),
        "d_accuracy": right / 2,
    }


def combine_logs(logs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The log of a batch from those of its equal parts: means, and for gradients at SR the norm over all parts."""
    number = len(logs)
    if number == 1:
        return dict(logs[0])
    combined = {}
    for key in logs[0]:
        values = torch.stack([log[key] for log in logs])
        # Each part's loss counts 1 / number, and so does its gradient.
        combined[key] = values.norm() / number if key.startswith("grad_") else values.mean()
    return combined


def _see(
    net_d: nn.Module | None,
    sr: Tensor,
    batch: Batch,
    mask: Tensor | None,
    terms: Sequence[Term],
    shared: bool,
    report: dict[str, Tensor] | None,
) -> tuple[Pass, Looks | None]:
    """What D makes of SR and GT, with the features that the terms want, for the terms and for D's own half."""
    if net_d is None:
        return Pass(batch, sr, report=report), None
    taps = tuple(tap for term in terms if isinstance(term, DiscPerceptualTerm) for tap in term.loss.taps)
    with _batchnorm_running(net_d) if _reads_running_statistics(terms) else nullcontext():
        with torch.set_grad_enabled(shared):
            real, real_features = _look(net_d, _masked(batch.gt, mask), taps)
        fake, fake_features = _look(net_d, _masked(sr, mask), taps)
    constants = {name: value.detach() for name, value in real_features.items()}
    step = Pass(batch, sr, real.detach(), fake, constants, fake_features, report)
    return step, Looks(real, fake) if shared else None


def _look(net_d: nn.Module, image: Tensor, taps: tuple[str | int, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    # A foreign discriminator has no taps, and needs none where L_DP is off.
    return net_d(image, taps=taps) if taps else (net_d(image), {})


def _masked(image: Tensor, mask: Tensor | None) -> Tensor:
    return image if mask is None else image * mask


def _reads_running_statistics(terms: Sequence[Term]) -> bool:
    return any(term.loss.bn == "running" for term in terms if isinstance(term, DiscPerceptualTerm))


def _gradient_norm(value: Tensor, sr: Tensor, scale: Tensor | float) -> Tensor:
    if not value.requires_grad:
        return sr.new_zeros(())
    # In fp16 the gradient would vanish on its way without the scale.
    (gradient,) = torch.autograd.grad(value * scale, sr, retain_graph=True, allow_unused=True)
    return sr.new_zeros(()) if gradient is None else gradient.norm() / scale


def _diagnose(sr: Tensor, gt: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """The mean over images of SR's standard deviation by GT's, and the share of pixels that the mask keeps."""
    deviation = sr.flatten(1).std(dim=1) / gt.flatten(1).float().std(dim=1).clamp_min(1e-3)
    found = {"sr_contrast": deviation.mean()}
    if mask is not None:
        found["mask_share"] = mask.float().mean()
    return found


@contextmanager
def _frozen(net: nn.Module | None) -> Iterator[None]:
    """No gradients for the parameters of ``net`` while G trains through it."""
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
    """BatchNorm by its running statistics, which stay as they are."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
