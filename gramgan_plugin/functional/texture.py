"""The patch-wise texture loss: which candidate each patch of SR is drawn to, and how far away it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gramgan_plugin.functional.candidates import KINDS, CandidateSet, candidate_set, describe_patches
from gramgan_plugin.functional.gram import gram_difference
from gramgan_plugin.functional.nearest import Neighbourhood, nearest_candidates
from gramgan_plugin.functional.patches import check_image, patch_centres
from gramgan_plugin.functional.precision import at_least_float32, autocast_off


@dataclass(frozen=True)
class Selection:
    """The candidate chosen for each patch of SR.

    Attributes:
        index: (N, P), int64, into the candidates.
        candidates: the candidates that were searched.
    """

    index: Tensor
    candidates: CandidateSet

    @property
    def kind(self) -> Tensor:
        """(N, P), int64: the chosen candidates' indices in `KINDS`."""
        return self.candidates.kind()[self.index]

    def kind_fractions(self) -> dict[str, float]:
        """The fraction of patches that chose a candidate of each kind; the fractions sum to 1."""
        counts = torch.bincount(self.kind.flatten(), minlength=len(KINDS)).tolist()
        return {name: count / self.index.numel() for name, count in zip(KINDS, counts, strict=True)}

    def own_position_fraction(self) -> float:
        """The fraction of patches that chose GT's patch at their own place."""
        own = torch.arange(self.index.shape[1], device=self.index.device)  # GT's patches come first, in order
        return float((self.index == own).double().mean())

    def describe(self, by: str, normalize: bool = True, center: bool = False) -> Tensor:
        """(N, P, D): what `describe_patches` gives for the chosen candidates."""
        vectors = self.candidates.describe(by, normalize, center)  # (N, K, D)
        return vectors.gather(1, self.index.unsqueeze(-1).expand(-1, -1, vectors.shape[-1]))


@torch.no_grad()
def select_candidates(
    sr: Tensor,
    gt: Tensor,
    theta: Tensor | None = None,
    *,
    patch_size: int = 4,
    alpha: float = 1.0,
    beta: float = 1.0,
    select_by: str = "gram",
    normalize: bool = True,
    center: bool = False,
    downsample: Sequence[int] = (2,),
    antialias: bool = True,
    affine_sampling: str = "bicubic",
    radius: float | None = None,
    chunk_size: int = 2**20,
) -> Selection:
    """Choose for each SR patch the candidate that is near both to it and to GT's patch at its place.

    With x the description of an SR patch and y that of GT's patch there, the chosen candidate minimises
    alpha ||p - x||^2 + beta ||p - y||^2, which is a nearest-neighbour search for (alpha x + beta y) / (alpha
    + beta). The anchor in GT follows Beby-GAN (a decision of this project; Song et al., Gram-GAN, Sensors
    2023, 23(4), 2098 name the SR patch only, which is ``beta=0``).

    Args:
        sr: (N, C, H, W); H and W are multiples of ``patch_size``.
        gt: (N, C, H, W).
        theta: (N, copies, 2, 3), the affine matrices of the warped copies; None for none.
        patch_size: side of a patch in pixels.
        alpha: weight of the distance to the SR patch.
        beta: weight of the distance to the GT patch.
        select_by: ``gram`` or ``pixel``: what the distance is measured in.
        normalize: see `gram_vectors`.
        center: see `gram_vectors`.
        downsample: see `candidate_set`.
        antialias: see `candidate_set`.
        affine_sampling: see `candidate_set`.
        radius: only candidates whose centre is within so many patches of GT, downwards and sideways; None for
            all.
        chunk_size: the most distances held in memory at a time.

    Returns:
        The chosen candidates, without gradient.

    Raises:
        ValueError: if the shapes do not fit, or the sides are not multiples of ``patch_size``.
    """
    _check_pair(sr, gt, patch_size)
    sr, gt = at_least_float32(sr, gt)
    candidates = candidate_set(gt, theta, patch_size, downsample, antialias, affine_sampling)
    x = describe_patches(sr, patch_size, select_by, normalize, center)
    y = describe_patches(gt, patch_size, select_by, normalize, center)
    query = (alpha * x + beta * y) / (alpha + beta)
    allowed = None
    if radius is not None:
        height, width = gt.shape[2:]
        centres = patch_centres(height, width, patch_size, height, width).to(gt.device)
        allowed = Neighbourhood(centres, candidates.centres(), radius * patch_size)
    vectors = candidates.describe(select_by, normalize, center)
    return Selection(nearest_candidates(query, vectors, chunk_size, allowed), candidates)


def gram_patch_loss(
    sr: Tensor,
    selection: Selection,
    *,
    loss_on: str = "gram",
    criterion: str = "l1",
    normalize: bool = True,
    center: bool = False,
) -> Tensor:
    """Mean difference between the patches of SR and the candidates chosen for them.

    Args:
        sr: (N, C, H, W), with gradient.
        selection: what `select_candidates` chose for this SR.
        loss_on: ``gram``: over all C * C entries of the Gram matrices; ``pixel``: over the patches' pixels
            (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098, can be read both ways; ``gram`` is a decision
            of this project).
        criterion: ``l1`` or ``mse``.
        normalize: see `gram_vectors`.
        center: see `gram_vectors`.

    Returns:
        A scalar in at least float32, with a gradient for ``sr`` only.

    Example:
        >>> import torch
        >>> gt = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> float(gram_patch_loss(gt, select_candidates(gt, gt)))
        0.0
    """
    with autocast_off(sr.device):
        described = describe_patches(sr, selection.candidates.patch_size, loss_on, normalize, center)
        with torch.no_grad():
            target = selection.describe(loss_on, normalize, center)
        if loss_on == "gram":
            return gram_difference(described, target, sr.shape[1], criterion)
        difference = described - target
        return difference.square().mean() if criterion == "mse" else difference.abs().mean()


def _check_pair(sr: Tensor, gt: Tensor, patch_size: int) -> None:
    check_image(sr, "sr")
    if sr.shape != gt.shape:
        raise ValueError(f"sr and gt must have one shape, got {tuple(sr.shape)} and {tuple(gt.shape)}")
    if sr.shape[2] % patch_size or sr.shape[3] % patch_size:
        # Pixels beyond the last whole patch would get no gradient.
        raise ValueError(
            f"sr of {sr.shape[2]}x{sr.shape[3]} px cannot be cut into whole patches of {patch_size} px; "
            f"choose a crop size that is a multiple of patch_size"
        )
