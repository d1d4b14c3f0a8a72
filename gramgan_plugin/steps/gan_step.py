"""One iteration: the generator's half and the discriminator's half. Each runs backward; neither steps an optimizer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from gramgan_plugin.steps.terms import Adversarial, Batch, DiscPerceptualTerm, Pass, Term

Autocast = Callable[[], AbstractContextManager[object]]


def generator_step(
    net_g: nn.Module,
    net_d: nn.Module | None,
    terms: Sequence[Term],
    batch: Batch,
    mask: Tensor | None = None,
    *,
    gradient_norms: bool = False,
    autocast: Autocast = nullcontext,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run G, sum the terms and run backward into G's parameters.

    D runs once over SR and once over GT, and both passes serve the adversarial and the perceptual term. GT's pass
    builds no graph, and D's parameters get no gradient.

    Args:
        net_g: generator, in train mode.
        net_d: discriminator, in train mode, or None for training without one.
        terms: what to sum; at least one.
        batch: LQ and GT.
        mask: (N, 1, H, W) of 0 and 1, put on SR and GT before D sees them, or None.
        gradient_norms: also measure each term's gradient at SR, at the cost of a backward through each term.
        autocast: makes the context in which forward passes run.

    Returns:
        SR (N, C, H, W), detached and in at least float32, and the log: each term's weighted value under its key
        (``l_g_pix``) and, if asked for, the L2 norm of its gradient at SR under ``grad_g_pix``; scalars on the
        device.
    """
    with autocast(), _frozen(net_d):
        sr = net_g(batch.lq)
        sr = sr.to(torch.promote_types(sr.dtype, torch.float32))
        step = _see(net_d, sr, batch, mask, terms)
        values = {term.key: term(step) for term in terms}
    log = {key: value.detach() for key, value in values.items()}
    if gradient_norms:
        for key, value in values.items():
            log[key.replace("l_", "grad_", 1)] = _gradient_norm(value, sr)
    torch.stack([value.reshape(()) for value in values.values()]).sum().backward()
    return sr.detach(), log


def discriminator_step(
    net_d: nn.Module,
    adversarial: Adversarial,
    sr: Tensor,
    gt: Tensor,
    mask: Tensor | None = None,
    *,
    autocast: Autocast = nullcontext,
) -> dict[str, Tensor]:
    """Run D over GT and over SR, each by its own batch statistics, and run backward into D's parameters.

    Args:
        net_d: discriminator, in train mode.
        adversarial: the loss.
        sr: (N, C, H, W) without graph; nothing reaches G.
        gt: (N, C, H, W).
        mask: as in ``generator_step``.
        autocast: as in ``generator_step``.

    Returns:
        ``l_d_real`` and ``l_d_fake``, the halves that were summed, and ``out_d_real`` and ``out_d_fake``, the mean
        logits; scalars on the device.
    """
    with autocast():
        real = net_d(_masked(gt, mask))
        fake = net_d(_masked(sr.detach(), mask))
        l_real, l_fake = adversarial.discriminator(real, fake)
    (l_real + l_fake).backward()
    return {
        "l_d_real": l_real.detach(),
        "l_d_fake": l_fake.detach(),
        "out_d_real": real.detach().float().mean(),
        "out_d_fake": fake.detach().float().mean(),
    }


def _see(net_d: nn.Module | None, sr: Tensor, batch: Batch, mask: Tensor | None, terms: Sequence[Term]) -> Pass:
    """What D makes of SR and GT, with the features that the terms want."""
    if net_d is None:
        return Pass(batch, sr)
    perceptual = [term.loss for term in terms if isinstance(term, DiscPerceptualTerm)]
    taps = tuple(tap for loss in perceptual for tap in loss.taps)
    running = any(loss.bn == "running" for loss in perceptual)
    with _batchnorm_running(net_d) if running else nullcontext():
        with torch.no_grad():
            real_logits, real_features = _look(net_d, _masked(batch.gt, mask), taps)
        fake_logits, fake_features = _look(net_d, _masked(sr, mask), taps)
    return Pass(batch, sr, real_logits, fake_logits, real_features, fake_features)


def _look(net_d: nn.Module, image: Tensor, taps: tuple[str | int, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    # A foreign discriminator has no taps, and needs none where L_DP is off.
    return net_d(image, taps=taps) if taps else (net_d(image), {})


def _masked(image: Tensor, mask: Tensor | None) -> Tensor:
    return image if mask is None else image * mask


def _gradient_norm(value: Tensor, sr: Tensor) -> Tensor:
    if not value.requires_grad:
        return sr.new_zeros(())
    (gradient,) = torch.autograd.grad(value, sr, retain_graph=True, allow_unused=True)
    return sr.new_zeros(()) if gradient is None else gradient.norm()


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
