"""The loss terms of the generator: each picks what its loss needs out of one pass and gives a scalar.

A loss module takes tensors and knows nothing of a step; a term stands between the two. A new loss of the form
``loss(sr, gt)`` needs no code here: it goes under ``train.extra_terms`` in the option file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gramgan_plugin.functional.candidates import random_draw, random_theta
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.functional.precision import at_least_float32


@dataclass(frozen=True)
class Batch:
    """What an iteration starts from.

    Attributes:
        lq: (N, C, h, w) in [0, 1].
        gt: (N, C, H, W) in [0, 1].
        iteration: 1-based number of the iteration.
        manual_seed: the run's seed; with the iteration and a sample's index it determines the random numbers.
        first_index: index of the first sample in the global batch.
        stride: from one sample's index to the next one's; the number of processes, which take the samples in turn.
    """

    lq: Tensor
    gt: Tensor
    iteration: int
    manual_seed: int = 0
    first_index: int = 0
    stride: int = 1

    def parts(self, number: int) -> list["Batch"]:
        """The batch in ``number`` equal parts, one after the other.

        Raises:
            ValueError: if it cannot be divided so.
        """
        size, rest = divmod(len(self.lq), number)
        if rest or size == 0:
            raise ValueError(f"a batch of {len(self.lq)} cannot be split into {number} equal parts")
        return [
            replace(
                self,
                lq=self.lq[start : start + size],
                gt=self.gt[start : start + size],
                first_index=self.first_index + self.stride * start,
            )
            for start in range(0, len(self.lq), size)
        ]


@dataclass(frozen=True)
class Pass:
    """One pass of the generator, and of the discriminator over SR and GT where there is one.

    Attributes:
        batch: the batch.
        sr: (N, C, H, W), in at least float32.
        real_logits: D's answer to (masked) GT, without gradient, or None without a discriminator.
        fake_logits: D's answer to (masked) SR.
        real_features: D's features of GT by tap name.
        fake_features: D's features of SR by tap name.
        report: where terms put what is worth logging (scalars on the device) in an iteration that logs; else None.
    """

    batch: Batch
    sr: Tensor
    real_logits: Tensor | None = None
    fake_logits: Tensor | None = None
    real_features: Mapping[str, Tensor] = field(default_factory=dict)
    fake_features: Mapping[str, Tensor] = field(default_factory=dict)
    report: dict[str, Tensor] | None = None


class Adversarial(Protocol):
    """What a step asks of an adversarial loss; ``MaskedRaGANLoss`` is one."""

    def mask(self, gt: Tensor, lq: Tensor | None = None) -> Tensor | None: ...
    def generator(self, real: Tensor, fake: Tensor) -> Tensor: ...
    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]: ...


class Relativistic(nn.Module):
    """BasicSR's ``GANLoss`` used as its ``ESRGANModel`` uses it: relativistic average, without a mask.

    Args:
        loss: called as ``loss(logits, target_is_real, is_disc=...)``.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def mask(self, gt: Tensor, lq: Tensor | None = None) -> None:
        """No mask."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Mean of the two halves of G's loss; the gradient flows through the mean of the fakes too."""
        real, fake = at_least_float32(real, fake)
        of_real = self.loss(real - fake.mean(), False, is_disc=False)
        of_fake = self.loss(fake - real.mean(), True, is_disc=False)
        return (of_real + of_fake) / 2

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves of D's loss, each already halved; the means carry no gradient."""
        real, fake = at_least_float32(real, fake)
        of_real = self.loss(real - fake.mean().detach(), True, is_disc=True) / 2
        of_fake = self.loss(fake - real.mean().detach(), False, is_disc=True) / 2
        return of_real, of_fake


class Term(nn.Module):
    """A weighted term of G's loss: ``term(pass) -> scalar``, logged under ``key``."""

    def __init__(self, key: str, loss: Any) -> None:
        super().__init__()
        self.key = key
        self.loss = loss


class ImageTerm(Term):
    """``loss(sr, gt)``; BasicSR's ``PerceptualLoss``, which answers (perceptual, style), counts as their sum."""

    def forward(self, step: Pass) -> Tensor:
        value = self.loss(step.sr, step.batch.gt)
        if not isinstance(value, tuple):
            return value
        parts = [part for part in value if part is not None]
        return torch.stack([part.reshape(()) for part in parts]).sum()


class GramPatchTerm(Term):
    """Patch-wise texture loss, its affine warps and draws made from (seed, iteration, sample).

    It reports the share of patches that chose each kind of candidate (``gram_original``, ``gram_downsampled``,
    ``gram_affine``, and with a database ``gram_database``), the mean distance to the chosen (``gram_distance``) and
    the one to GT's patches of the same places (``gram_one_to_one``).
    """

    def forward(self, step: Pass) -> Tensor:
        batch = step.batch
        numbers: dict[str, Any] = {
            "seed": (batch.manual_seed, batch.iteration),
            "first_index": batch.first_index,
            "stride": batch.stride,
        }
        theta = random_theta(len(batch.gt), self.loss.affine_copies, self.loss.affine_magnitude, **numbers)
        theta = theta.to(batch.gt.device, non_blocking=True)
        draw = None
        if self.loss.top_k > 1:
            draw = random_draw(len(batch.gt), self.loss.patches_in(batch.gt), **numbers)
            draw = draw.to(batch.gt.device, non_blocking=True)
        found: dict[str, Tensor] | None = None if step.report is None else {}
        value: Tensor = self.loss(step.sr, batch.gt, theta, draw=draw, report=found)
        if step.report is not None and found is not None:
            step.report.update({f"gram_{name}": number for name, number in found.items()})
        return value


class DiscPerceptualTerm(Term):
    """Distance of D's features of SR and GT."""

    def forward(self, step: Pass) -> Tensor:
        return self.loss(step.fake_features, step.real_features)


class AdversarialTerm(Term):
    """G's adversarial loss."""

    def forward(self, step: Pass) -> Tensor:
        if step.real_logits is None or step.fake_logits is None:
            raise ValueError(f"{self.key} needs a discriminator")
        return self.loss.generator(step.real_logits, step.fake_logits)


class BackProjectionTerm(Term):
    """``loss(SR downsampled by MATLAB bicubic, LQ)``: SR must be an image that has this LQ (as in Beby-GAN)."""

    def forward(self, step: Pass) -> Tensor:
        down = step.sr.shape[-1] // step.batch.lq.shape[-1]
        return self.loss(matlab_bicubic(step.sr, down=down), step.batch.lq)


# The option blocks under `train:` that make terms: block -> (log key, class).
BLOCKS: dict[str, tuple[str, type[Term]]] = {
    "pixel_opt": ("l_g_pix", ImageTerm),
    "perceptual_opt": ("l_g_percep", ImageTerm),
    "gram_patch_opt": ("l_g_gram", GramPatchTerm),
    "disc_perceptual_opt": ("l_g_dp", DiscPerceptualTerm),
    "gan_opt": ("l_g_gan", AdversarialTerm),
    "back_projection_opt": ("l_g_bp", BackProjectionTerm),
}


def build_terms(train: Mapping[str, Any], build_loss: Callable[[str, Mapping[str, Any]], nn.Module]) -> list[Term]:
    """The terms that an option file's ``train`` section asks for.

    Args:
        train: the section; blocks of ``BLOCKS`` that are absent or empty are off, and ``extra_terms`` maps a name
            to the option block of any loss of the form ``loss(sr, gt)``, logged as ``l_g_NAME``.
        build_loss: builds a loss from (where the block stands, the block).

    Returns:
        The terms, in the order of ``BLOCKS``, then the extra ones.
    """
    terms: list[Term] = []
    for block, (key, cls) in BLOCKS.items():
        if train.get(block):
            loss = build_loss(f"train.{block}", train[block])
            if cls is AdversarialTerm and not hasattr(loss, "generator"):
                loss = Relativistic(loss)
            terms.append(cls(key, loss))
    for name, block_options in (train.get("extra_terms") or {}).items():
        terms.append(ImageTerm(f"l_g_{name}", build_loss(f"train.extra_terms.{name}", block_options)))
    return terms
