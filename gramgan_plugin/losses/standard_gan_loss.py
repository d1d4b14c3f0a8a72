"""The adversarial losses of GANs that are not relativistic, with or without a mask of textured regions."""

from collections.abc import Mapping

from torch import Tensor

from gramgan_plugin.functional.adversarial import GAN_TYPES, discriminator_loss, generator_loss
from gramgan_plugin.losses.masked_ragan_loss import AdversarialLoss


class StandardGANLoss(AdversarialLoss):
    """Adversarial losses in which D judges each image for itself, or in pairs: SRGAN's, hinge, Wasserstein.

    Args:
        loss_weight: multiplies the generator's loss (SRGAN: 1e-3); the discriminator's is not weighted.
        gan_type: ``vanilla``, ``lsgan``, ``hinge``, ``wgan``, ``wgan_softplus`` or ``paired``; see
            ``functional.adversarial.generator_loss``.
        mask: what D sees, as in ``MaskedRaGANLoss``; None for everything.

    Raises:
        ValueError: for an unknown type or mask.

    Example:
        >>> import torch
        >>> loss = StandardGANLoss(loss_weight=1.0)
        >>> round(float(loss.generator(torch.zeros(1, 1), torch.zeros(1, 1))), 4)
        0.6931
    """

    def __init__(
        self,
        loss_weight: float = 1e-3,
        gan_type: str = "vanilla",
        mask: str | Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(loss_weight, mask)
        if gan_type not in GAN_TYPES:
            raise ValueError(f"gan_type: expected one of {', '.join(GAN_TYPES)}, got {gan_type!r}")
        self.gan_type = gan_type

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return G's loss times ``loss_weight``, from logits of any shape; the gradient flows into ``fake`` alone."""
        return self.loss_weight * generator_loss(real, fake, self.gan_type)

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return (l_d_real, l_d_fake), the two terms of D's loss, without ``loss_weight``."""
        return discriminator_loss(real, fake, self.gan_type)
