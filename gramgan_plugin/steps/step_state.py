"""The two records of an iteration: what it starts from, and what it has computed so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


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
        targets: (N, C, H, W) by a term's key (``l_g_pix``), for terms whose target is another image than ``gt``.
    """

    lq: Tensor
    gt: Tensor
    iteration: int
    manual_seed: int = 0
    first_index: int = 0
    stride: int = 1
    targets: Mapping[str, Tensor] = field(default_factory=dict)

    def target(self, key: str) -> Tensor:
        """Return the target of the term of that key: GT, or the image that ``targets`` has for it."""
        return self.targets.get(key, self.gt)

    def parts(self, number: int) -> list["Batch"]:
        """Return the batch in ``number`` equal parts, one after the other.

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
                targets={key: image[start : start + size] for key, image in self.targets.items()},
            )
            for start in range(0, len(self.lq), size)
        ]


@dataclass
class StepState:
    """What an iteration has computed so far.

    Attributes:
        batch: the batch.
        sr: (N, C, H, W), in at least float32.
        mask: (N, 1, H, W) of 0 and 1, by which images are multiplied before D sees them, or None.
        noise: (N, C, H, W) each, added to GT and to SR before D sees them, or None.
        sr_average: (N, C, H, W), SR of the averaged weights; None where no term reads it.
        logits_gt: D's outputs for (masked) GT; None without a discriminator.
        logits_sr: D's outputs for (masked) SR.
        features_gt: D's features of GT by tap name.
        features_sr: D's features of SR by tap name.
        report: where terms put what is worth logging (scalars on the device) in an iteration that diagnoses; else None.
        log: scalars on the device.
    """

    batch: Batch
    sr: Tensor
    mask: Tensor | None = None
    noise: tuple[Tensor, Tensor] | None = None
    sr_average: Tensor | None = None
    logits_gt: Tensor | None = None
    logits_sr: Tensor | None = None
    features_gt: Mapping[str, Tensor] = field(default_factory=dict)
    features_sr: Mapping[str, Tensor] = field(default_factory=dict)
    report: dict[str, Tensor] | None = None
    log: dict[str, Tensor] = field(default_factory=dict)

    def logits(self) -> tuple[Tensor, Tensor]:
        """Return D's outputs for GT and for SR.

        Raises:
            ValueError: without a discriminator.
        """
        if self.logits_gt is None or self.logits_sr is None:
            raise ValueError("an adversarial loss needs a discriminator")
        return self.logits_gt, self.logits_sr

    def as_d_sees(self, sr: Tensor) -> tuple[Tensor, Tensor]:
        """Return GT (the target of ``gan_opt``) and SR with their noise, masked."""
        gt = self.batch.target("l_g_gan")
        if self.noise is not None:
            gt, sr = gt + self.noise[0], sr + self.noise[1]
        return (gt, sr) if self.mask is None else (gt * self.mask, sr * self.mask)
