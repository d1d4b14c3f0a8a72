"""The relativistic average GAN's losses on logits.

With D_Ra(a, b) = sigmoid(a - E[b]), -log D_Ra = softplus(E[b] - a) and -log(1 - D_Ra) = softplus(a - E[b]),
which neither overflow nor take the logarithm of 0.
"""

from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.functional.precision import at_least_float32


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """L_G = (-E log(1 - D_Ra(real, fake)) - E log D_Ra(fake, real)) / 2 (Song et al. 2023, after ESRGAN).

    Args:
        real: logits of GT, any shape; constants here.
        fake: logits of SR, any shape; gradient flows through them and through their mean.

    Returns:
        A scalar in at least float32.

    Example:
        >>> import torch
        >>> relativistic_generator_loss(torch.zeros(2, 1), torch.zeros(2, 1))
        tensor(0.6931)
    """
    real, fake = at_least_float32(real.detach(), fake)
    return (F.softplus(real - fake.mean()).mean() + F.softplus(real.mean() - fake).mean()) / 2


def relativistic_discriminator_loss(real: Tensor, fake: Tensor, detach_mean: bool = True) -> tuple[Tensor, Tensor]:
    """L_D = (-E log D_Ra(real, fake) - E log(1 - D_Ra(fake, real))) / 2, as its two summands.

    Args:
        real: logits of GT, any shape.
        fake: logits of SR, any shape.
        detach_mean: treat both means as constants, as BasicSR and Beby-GAN do; False gives the full gradient.

    Returns:
        Two scalars in at least float32, the real and the fake half; their sum is L_D.

    Example:
        >>> import torch
        >>> relativistic_discriminator_loss(torch.zeros(2, 1), torch.zeros(2, 1))
        (tensor(0.3466), tensor(0.3466))
    """
    real, fake = at_least_float32(real, fake)
    mean_real, mean_fake = real.mean(), fake.mean()
    if detach_mean:
        mean_real, mean_fake = mean_real.detach(), mean_fake.detach()
    return F.softplus(mean_fake - real).mean() / 2, F.softplus(fake - mean_real).mean() / 2
