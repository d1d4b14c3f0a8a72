"""Compute the losses of GANs that judge each image for itself, from logits; see ``relativistic`` for the others."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.utils.precision import at_least_float32

GAN_TYPES = ("vanilla", "lsgan", "hinge", "wgan", "wgan_softplus", "paired")


def generator_loss(real: Tensor, fake: Tensor, gan_type: str = "vanilla") -> Tensor:
    """Return G's loss, with r and f the logits of GT and SR.

    ==================  =====================================================================
    ``vanilla``         E softplus(-f) = -E log D(SR), which does not saturate (Goodfellow et al. 2014)
    ``lsgan``           E (f - 1)^2 (Mao et al. 2017)
    ``hinge``, ``wgan``  -E f (Lim and Ye 2017; Arjovsky et al. 2017)
    ``wgan_softplus``   E softplus(E r - f): wgan's, bounded below (a decision of this project). A critic's level is
                        arbitrary, and drifts: softplus(-f) would vanish or grow with it. E r is of the logits that
                        are given: of each process's own GT, and of each part of an accumulated batch
    ``paired``          E softplus(r - f) of pairs of GT and SR (RpGAN, as in R3GAN, Huang et al. 2024)
    ==================  =====================================================================

    Args:
        real: logits of GT; constants here.
        fake: logits of SR, of the same shape.
        gan_type: one of ``GAN_TYPES``.

    Returns:
        A scalar in at least float32.

    Raises:
        ValueError: for another type.

    Example:
        >>> round(float(generator_loss(torch.zeros(2, 1), torch.zeros(2, 1))), 4)
        0.6931
    """
    real, fake = at_least_float32(real.detach(), fake)
    if gan_type == "vanilla":
        return F.softplus(-fake).mean()
    if gan_type == "wgan_softplus":
        return F.softplus(real.mean() - fake).mean()
    if gan_type == "lsgan":
        return (fake - 1).square().mean()
    if gan_type in ("hinge", "wgan"):
        return -fake.mean()
    return F.softplus(_checked(real, gan_type) - fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor, gan_type: str = "vanilla") -> tuple[Tensor, Tensor]:
    """Return the two terms of D's loss, that of GT and that of SR; see ``generator_loss``.

    ``vanilla``: E softplus(-r), E softplus(f). ``lsgan``: E (r - 1)^2, E f^2. ``hinge``: E max(0, 1 - r) and
    E max(0, 1 + f). ``wgan`` and ``wgan_softplus``: -E r, E f. ``paired``: half of E softplus(f - r) each.

    Example:
        >>> discriminator_loss(torch.tensor([[2.0]]), torch.tensor([[-0.5]]), "hinge")
        (tensor(0.), tensor(0.5000))
    """
    real, fake = at_least_float32(real, fake)
    if gan_type == "vanilla":
        return F.softplus(-real).mean(), F.softplus(fake).mean()
    if gan_type == "lsgan":
        return (real - 1).square().mean(), fake.square().mean()
    if gan_type == "hinge":
        return F.relu(1 - real).mean(), F.relu(1 + fake).mean()
    if gan_type in ("wgan", "wgan_softplus"):
        return -real.mean(), fake.mean()
    half = F.softplus(fake - _checked(real, gan_type)).mean() / 2
    return half, half


def gradient_norms(outputs: Tensor, images: Tensor) -> Tensor:
    """Return the L2 norm of the gradient of each sample's output at its image, which can be differentiated again.

    Args:
        outputs: (N, ...) of ``images``; summed for each sample, and no sample's depend on another's image.
        images: (N, C, H, W) that require a gradient.

    Returns:
        (N,).

    Example:
        >>> images = torch.ones(2, 1, 1, 2, requires_grad=True)
        >>> gradient_norms((torch.tensor([3.0, 4.0]) * images).flatten(1), images).tolist()
        [5.0, 5.0]
    """
    (gradient,) = torch.autograd.grad(outputs.sum(), images, create_graph=True)
    # The root of the squares' sum has no gradient at 0.
    return gradient.flatten(1).square().sum(dim=1).clamp_min(1e-24).sqrt()


def _checked(real: Tensor, gan_type: str) -> Tensor:
    if gan_type != "paired":
        raise ValueError(f"gan_type: expected one of {', '.join(GAN_TYPES)}, got {gan_type!r}")
    return real
