"""The patch-wise texture loss on images: which candidate each patch of SR is drawn to, and how far away it is."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gramgan_plugin.functional.candidates import candidate_set
from gramgan_plugin.functional.choosing import choose
from gramgan_plugin.functional.description import Description, describe_patches
from gramgan_plugin.functional.gram import gram_difference
from gramgan_plugin.functional.patches import check_image
from gramgan_plugin.functional.precision import at_least_float32, autocast_off
from gramgan_plugin.functional.selection import Database, Selection


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
    stride: int | None = None,
    radius: float | None = None,
    top_k: int = 1,
    draw: Tensor | None = None,
    database: Database | None = None,
    database_only: bool = False,
    embed: Callable[[Tensor], Tensor] | None = None,
    reduction: int = 1,
    measure: bool = False,
    chunk_size: int = 2**22,
) -> Selection:
    """Choose for each SR patch the candidate that is near both to it and to GT's patch at its place.

    With x the description of an SR patch and y that of GT's patch there, the chosen candidate minimises
    alpha ||p - x||^2 + beta ||p - y||^2, which is a nearest-neighbour search for (alpha x + beta y) / (alpha
    + beta). The anchor in GT follows Beby-GAN (a decision of this project; Song et al., Gram-GAN, Sensors
    2023, 23(4), 2098 name the SR patch only, which is ``beta=0``).

    Args:
        sr: (N, C, H, W), to be cut into whole patches without a remainder.
        gt: (N, C, H, W).
        theta: (N, copies, 2, 3), the affine matrices of the warped copies; None for none.
        patch_size: side of a patch in pixels (of the features' map, where features are compared).
        alpha: weight of the distance to the SR patch.
        beta: weight of the distance to the GT patch.
        select_by: ``gram`` or ``pixel``: what the distance is measured in.
        normalize: see `gram_vectors`.
        center: see `gram_vectors`.
        downsample: see `candidate_set`.
        antialias: see `candidate_set`.
        affine_sampling: see `candidate_set`.
        stride: pixels from one patch to the next, of SR as of the candidates; None for ``patch_size``.
        radius: only candidates whose centre is within so many patches of GT, downwards and sideways; None for
            all. The database has no places.
        top_k: of how many nearest candidates one is drawn.
        draw: (N, P) in [0, 1), what decides in drawing; needed where ``top_k`` is above 1.
        database: patches to choose from as well; Gram vectors only.
        database_only: whether to choose from the database alone.
        embed: see `candidate_set`.
        reduction: see `candidate_set`.
        measure: whether to measure the distances of `Selection`, too.
        chunk_size: the most distances held in memory at a time.

    Returns:
        The chosen candidates, without gradient.

    Raises:
        ValueError: if the shapes do not fit, or patches do not cover SR.
    """
    check_pair(sr, gt, patch_size * reduction, None if stride is None else stride * reduction)
    sr, gt = at_least_float32(sr, gt)
    candidates = candidate_set(gt, theta, patch_size, downsample, antialias, affine_sampling, stride, embed, reduction)
    how = Description(select_by, normalize, center)
    maps = sr if embed is None else at_least_float32(embed(sr))[0]
    return choose(
        how.of_image(maps, patch_size, stride),
        candidates,
        how,
        alpha=alpha,
        beta=beta,
        radius=radius,
        top_k=top_k,
        draw=draw,
        database=database,
        database_only=database_only,
        measure=measure,
        chunk_size=chunk_size,
    )


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
        sr: (N, C, H, W), with gradient; where features are compared, SR's map.
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
    candidates = selection.candidates
    with autocast_off(sr.device):
        x = describe_patches(sr, candidates.patch_size, loss_on, normalize, center, candidates.stride)
        return described_loss(x, selection, Description(loss_on, normalize, center), sr.shape[1], criterion)


def described_loss(x: Tensor, selection: Selection, on: Description, channels: int, criterion: str = "l1") -> Tensor:
    """As `gram_patch_loss`, for SR's patches described already.

    Args:
        x: (N, P, D), what ``on`` gives for SR, with gradient.
        selection: what was chosen.
        on: what is compared.
        channels: C.
        criterion: ``l1`` or ``mse``.

    Returns:
        A scalar.
    """
    with autocast_off(x.device):
        with torch.no_grad():
            target = selection.describe(on.by, on.normalize, on.center).to(x.dtype)
        if on.by == "gram":
            return gram_difference(x, target, channels, criterion)
        difference = x - target
        return difference.square().mean() if criterion == "mse" else difference.abs().mean()


def check_pair(sr: Tensor, gt: Tensor, patch_size: int, stride: int | None = None) -> None:
    """Raise ValueError unless SR and GT have one shape and patches cover it without a remainder."""
    check_image(sr, "sr")
    if sr.shape != gt.shape:
        raise ValueError(f"sr and gt must have one shape, got {tuple(sr.shape)} and {tuple(gt.shape)}")
    step = patch_size if stride is None else stride
    # Pixels beyond the last whole patch would get no gradient.
    if any(side < patch_size or (side - patch_size) % step for side in sr.shape[2:]):
        distance = "" if step == patch_size else f", {step} px from one to the next"
        advice = "a multiple of patch_size" if step == patch_size else "patch_size and a multiple of stride"
        raise ValueError(
            f"sr of {sr.shape[2]}x{sr.shape[3]} px cannot be cut into whole patches of {patch_size} px{distance}; "
            f"choose a crop size that is {advice}"
        )
