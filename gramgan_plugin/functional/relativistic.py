"""Compute the losses of the relativistic average GAN from logits.

With D_Ra(a, b) = sigmoid(a - E[b]), -log D_Ra = softplus(E[b] - a) and -log(1 - D_Ra) = softplus(a - E[b]), which do
not overflow and take no logarithm of 0.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.utils.precision import at_least_float32

Means = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def batch_means(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means E[real] and E[fake] of these logits."""
    return real.mean(), fake.mean()


def relativistic_generator_loss(real: Tensor, fake: Tensor, means: Means = batch_means) -> Tensor:
    """Return L_G = (-E log(1 - D_Ra(real, fake)) - E log D_Ra(fake, real)) / 2 (Song et al. 2023, after ESRGAN).

    Args:
        real: logits of GT, any shape; constants here.
        fake: logits of SR, any shape; gradient flows through them and through their mean.
        means: returns (E[real], E[fake]) of both logits; replaced if the batch is split over processes.

    Returns:
        A scalar in at least float32.

    Example:
        >>> import torch
        >>> relativistic_generator_loss(torch.zeros(2, 1), torch.zeros(2, 1))
        tensor(0.6931)
    """
    real, fake = at_least_float32(real.detach(), fake)
    mean_real, mean_fake = means(real, fake)
    return (F.softplus(real - mean_fake).mean() + F.softplus(mean_real - fake).mean()) / 2


def relativistic_discriminator_loss(
    real: Tensor, fake: Tensor, detach_mean: bool = True, means: Means = batch_means
) -> tuple[Tensor, Tensor]:
    """Return L_D = (-E log D_Ra(real, fake) - E log(1 - D_Ra(fake, real))) / 2, as its two terms.

    Args:
        real: logits of GT, any shape.
        fake: logits of SR, any shape.
        detach_mean: treat both means as constants, as BasicSR and Beby-GAN do; False gives the full gradient.
        means: as for the generator's.

    Returns:
        Two scalars in at least float32, the real and the fake term; their sum is L_D.

    Example:
        >>> import torch
        >>> relativistic_discriminator_loss(torch.zeros(2, 1), torch.zeros(2, 1))
        (tensor(0.3466), tensor(0.3466))
    """
    real, fake = at_least_float32(real, fake)
    mean_real, mean_fake = means(real.detach(), fake.detach()) if detach_mean else means(real, fake)
    return F.softplus(mean_fake - real).mean() / 2, F.softplus(fake - mean_real).mean() / 2
