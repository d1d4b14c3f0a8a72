"""The relativistic average GAN loss on textured regions."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gramgan_plugin.functional.region_mask import region_mask
from gramgan_plugin.functional.relativistic import (
    batch_means,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from gramgan_plugin.utils.precision import at_least_float32, autocast_off


@dataclass(frozen=True)
class RegionMask:
    """The options of the mask of textured regions.

    Attributes:
        window: side of the window in pixels.
        stride: ``window`` for blocks, 1 for a window around each pixel.
        threshold: smallest standard deviation that is kept, for values in [0, 1].
        source: ``gt``, or ``lq`` for LQ enlarged to GT's size by bicubic interpolation.
    """

    window: int
    stride: int
    threshold: float
    source: str = "gt"

    def __post_init__(self) -> None:
        if self.window < 2 or self.stride not in (1, self.window):
            raise ValueError(
                f"mask: window must be at least 2 and stride 1 or the window, got {self.window} and {self.stride}"
            )
        if self.threshold < 0:
            raise ValueError(f"mask: threshold must not be negative, got {self.threshold}")
        if self.source not in ("gt", "lq"):
            raise ValueError(f"mask: source must be gt or lq, got {self.source!r}")


MASKS = {
    "gramgan": RegionMask(window=4, stride=4, threshold=0.005, source="gt"),
    "beby": RegionMask(window=11, stride=1, threshold=0.025, source="lq"),
}


class AdversarialLoss(nn.Module):
    """Base of losses that G and D train against each other by; they have the methods ``generator``, ``discriminator``.

    Args:
        loss_weight: multiplies the generator's loss; the discriminator's is not weighted.
        mask: a name of ``MASKS``, a mapping with ``window``, ``stride``, ``threshold`` and optionally ``source``, or
            None for no mask.

    Raises:
        ValueError: for a mask that does not exist.
    """

    form = "gan"

    def __init__(self, loss_weight: float, mask: str | Mapping[str, object] | None) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.region = _region_mask(mask)

    def mask(self, gt: Tensor, lq: Tensor | None = None) -> Tensor | None:
        """Return the mask that SR and GT are multiplied with before the discriminator sees them.

        Args:
            gt: (N, C, H, W) in [0, 1]; for a mask in blocks, H and W are multiples of the window.
            lq: (N, C, h, w) in [0, 1], needed if the source is ``lq``.

        Returns:
            (N, 1, H, W) of 0 and 1 in GT's dtype, or None without a mask.

        Raises:
            ValueError: if LQ is needed and missing, or the sides do not suit the window.
        """
        if self.region is None:
            return None
        image = gt
        if self.region.source == "lq":
            if lq is None:
                raise ValueError("the mask is computed from LQ (source: lq), but no lq was given")
            (lq,) = at_least_float32(lq)
            with autocast_off(lq.device):
                image = F.interpolate(lq, size=gt.shape[2:], mode="bicubic", align_corners=False)
        return region_mask(image, self.region.window, self.region.stride, self.region.threshold).to(gt.dtype)

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        """Raise an error: the two networks have different losses."""
        raise NotImplementedError(
            f"{type(self).__name__} is two losses: call .generator(real, fake) or .discriminator(real, fake)"
        )


class MaskedRaGANLoss(AdversarialLoss):
    r"""Relativistic average GAN losses L_G and L_D (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098).

    With :math:`D_{Ra}(a, b) = \sigma(C(a) - E[C(b)])`, real = M * GT and fake = M * SR,

    .. math::
        L_D = -\tfrac{1}{2} E \log D_{Ra}(real, fake) - \tfrac{1}{2} E \log (1 - D_{Ra}(fake, real))

    and L_G with real and fake exchanged. The mask M is 1 where the local standard deviation of luma is at
    least a threshold, so that the discriminator does not see flat regions.

    Args:
        loss_weight: multiplies the generator's loss; the discriminator's is not weighted.
        mask: ``gramgan`` (blocks of 4x4, 0.005, on GT), ``beby`` (11x11 around each pixel, 0.025, on enlarged
            LQ, as Beby-GAN does), a mapping with ``window``, ``stride``, ``threshold`` and optionally
            ``source``, or None for no mask. Computing it from GT's luma in blocks is a decision of this
            project.
        detach_mean: whether the means are constants in the discriminator's loss (as in BasicSR and Beby-GAN).
        global_mean: whether E is over the batches of all processes, as in one process with the whole batch; each
            process must then call the losses equally often. False takes each process's own batch, as BasicSR
            does. (A decision of this project.)

    Example:
        >>> import torch
        >>> loss = MaskedRaGANLoss()
        >>> gt = torch.cat([torch.full((1, 3, 4, 4), 0.9), torch.eye(4).expand(1, 3, 4, 4)], dim=3)
        >>> loss.mask(gt)[0, 0, 0].tolist()
        [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
        >>> real, fake = torch.zeros(1, 1), torch.zeros(1, 1)
        >>> round(float(loss.generator(real, fake)), 6)
        0.003466
        >>> round(float(sum(loss.discriminator(real, fake))), 4)
        0.6931
    """

    def __init__(
        self,
        loss_weight: float = 0.005,
        mask: str | Mapping[str, object] | None = "gramgan",
        detach_mean: bool = True,
        global_mean: bool = True,
    ) -> None:
        super().__init__(loss_weight, mask)
        self.detach_mean = detach_mean
        self.means = global_means if global_mean else batch_means

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return L_G times ``loss_weight``, from logits of any shape; the gradient flows into ``fake`` (SR) only."""
        return self.loss_weight * relativistic_generator_loss(real, fake, self.means)

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return (l_d_real, l_d_fake), the two terms of L_D, without ``loss_weight``."""
        return relativistic_discriminator_loss(real, fake, self.detach_mean, self.means)


def global_means(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return E[real] and E[fake] over the batches of all processes, which must be equally large.

    Without a process group they are those of this process. With one, every process must call it, and either all or none
    must run its backward.

    Args:
        real: logits of GT, any shape.
        fake: logits of SR, any shape.

    Returns:
        Two scalars. After the gradients of the parameters are averaged over the processes (by
        ``DistributedDataParallel``), they are those of one process with the whole batch.
    """
    means = batch_means(real, fake)
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return means
    both: Tensor = _MeanOverProcesses.apply(torch.stack(means))  # one exchange for the two
    return both[0], both[1]


class _MeanOverProcesses(torch.autograd.Function):
    """The mean of a tensor over the processes.

    Each process's loss L_s depends on the mean m = sum_r x_r / R. Averaging makes the whole loss sum_s L_s / R and
    scales the gradient that a process returns for x_r by 1 / R. So this gradient is R * d(sum_s L_s / R)/dx_r =
    sum_s (dL_s/dm) / R: the mean of the incoming gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean_over_processes(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean_over_processes(gradient)


def _mean_over_processes(x: Tensor) -> Tensor:
    total = x.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def _region_mask(mask: str | Mapping[str, object] | None) -> RegionMask | None:
    if mask is None:
        return None
    if isinstance(mask, str):
        if mask not in MASKS:
            raise ValueError(f"mask: expected one of {', '.join(MASKS)}, a mapping or null, got {mask!r}")
        return MASKS[mask]
    names = [field.name for field in fields(RegionMask)]
    unknown = sorted(set(mask) - set(names))
    missing = sorted(set(names) - {"source"} - set(mask))
    if unknown or missing:
        raise ValueError(
            f"mask: expected {', '.join(names)} (source may be left out); "
            f"unknown: {', '.join(unknown) or 'none'}, missing: {', '.join(missing) or 'none'}"
        )
    return RegionMask(**mask)  # type: ignore[arg-type]
