"""Penalties on the gradient of the discriminator at its inputs, which keep it from winning early."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gramgan_plugin.functional.adversarial import gradient_norms
from gramgan_plugin.utils.precision import at_least_float32, autocast_off

KINDS = ("wgan_gp", "r1", "r2", "r1r2")


class GradientPenalty(nn.Module):
    r"""A penalty on D's gradient at images, added to D's loss on every ``every``-th of its steps.

    .. math::
        \text{wgan\_gp}: \lambda E (\|\nabla D(\hat x)\| - 1)^2 \quad
        \text{r1}: \tfrac{\lambda}{2} E \|\nabla D(GT)\|^2 \quad
        \text{r2}: \tfrac{\lambda}{2} E \|\nabla D(SR)\|^2

    with x^ = u GT + (1 - u) SR, u uniform for each sample (Gulrajani et al. 2017); r1 and r2 are Mescheder et al.'s
    (2018), and ``r1r2`` is the sum of both, as in R3GAN (Huang et al. 2024). It is computed in float32.

    Args:
        loss_weight: lambda. Usual are 10 for wgan_gp. For r1 and r2 it depends on D: begin with what makes
            ``l_d_penalty`` in the log about 0.1. (Logits of a U-Net are summed over the image.)
        kind: ``wgan_gp``, ``r1``, ``r2`` or ``r1r2``.
        every: D's steps from one penalty to the next; it counts ``every`` times then, as in StyleGAN2. A penalty costs
            about two more passes of D.

    Raises:
        ValueError: for an unknown kind, a negative weight, or ``every`` below 1.
    """

    form = "penalty"

    def __init__(self, loss_weight: float = 10.0, kind: str = "r1", every: int = 1) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        if loss_weight < 0:
            raise ValueError(f"loss_weight: must not be negative, got {loss_weight}")
        if every < 1:
            raise ValueError(f"every: must be at least 1, got {every}")
        self.loss_weight = loss_weight
        self.kind = kind
        self.every = every

    def forward(self, net_d: Callable[[Tensor], Tensor], gt: Tensor, sr: Tensor, share: Tensor) -> Tensor:
        """Return the weighted penalty.

        Args:
            net_d: maps images to logits (N, ...).
            gt: (N, C, H, W), as D sees it.
            sr: the same of SR; no gradient flows into either.
            share: (N,) in [0, 1], u above; wgan_gp alone uses it.

        Returns:
            A scalar, whose gradient reaches D's weights alone.
        """
        gt, sr = at_least_float32(gt.detach(), sr.detach())
        if self.kind == "wgan_gp":
            between = torch.lerp(sr, gt, share.to(gt.dtype).view(-1, 1, 1, 1))
            value = (self._norms(net_d, between) - 1).square().mean()
        else:
            images = {"r1": [gt], "r2": [sr], "r1r2": [gt, sr]}[self.kind]
            values = [self._norms(net_d, image).square().mean() / 2 for image in images]
            value = torch.stack(values).sum()
        return self.loss_weight * self.every * value

    def _norms(self, net_d: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with torch.enable_grad(), autocast_off(images.device):
            images = images.requires_grad_()
            return gradient_norms(net_d(images), images)
