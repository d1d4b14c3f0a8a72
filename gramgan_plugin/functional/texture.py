"""Compute the patch-wise texture loss: choose a target for each patch of SR among candidates, and compare them."""

import torch
from torch import Tensor

from gramgan_plugin.functional.candidates import CandidateSet, candidate_set
from gramgan_plugin.functional.gram import describe_patches, gram_difference
from gramgan_plugin.functional.patches import check_image, patch_centres
from gramgan_plugin.functional.texture_options import TextureOptions
from gramgan_plugin.functional.texture_targets import Database, FeatureMap, Targets
from gramgan_plugin.search.differences import Neighbourhood
from gramgan_plugin.search.exact import nearest_several
from gramgan_plugin.utils.precision import at_least_float32, autocast_off
from gramgan_plugin.utils.untraced import untraced

# The most numbers in the candidates' descriptions held at a time, but at least those of one sample.
MOST_NUMBERS = 2**24
# What the description of a patch depends on.
DESCRIBED_BY = ("patch_size", "stride", "normalize", "center")


def choose_targets(
    sr: Tensor,
    gt: Tensor,
    options: TextureOptions,
    *,
    theta: Tensor | None = None,
    draw: Tensor | None = None,
    features: FeatureMap | None = None,
    database: Database | None = None,
    measure: bool = False,
) -> Targets:
    """Choose for each SR patch the candidate that is near both to it and to GT's patch at its place.

    With x the description of an SR patch and y that of GT's patch there, the target minimises alpha ||p - x||^2 + beta
    ||p - y||^2, so it is the nearest neighbour of (alpha x + beta y) / (alpha + beta). The term of GT follows
    Beby-GAN (a decision of this project; Song et al., Gram-GAN, Sensors 2023, 23(4), 2098 name the SR patch only, which
    is ``beta=0``).

    Args:
        sr: (N, C, H, W) in [0, 1]; patches must cover it without a remainder.
        gt: (N, C, H, W) in [0, 1].
        options: of patches, comparison and candidates.
        theta: (N, affine_copies, 2, 3) of `random_theta`; None draws them from torch's default generator.
        draw: (N, P) of `random_draw`, for ``top_k`` above 1; None draws them in the same way.
        features: the network whose features are compared; None for pixels.
        database: patches to choose from as well, or alone (``database_use``); Gram vectors only.
        measure: whether to compute the distances of `Targets`.

    Returns:
        The targets, without gradient.

    Raises:
        ValueError: if shapes do not fit together or patches do not cover SR.
    """
    with torch.no_grad():
        sr, gt = _checked(sr, gt, options, features)
        maps = sr if features is None else features(sr)
        x = _describe(maps, options.select_by, options)
        return _choose(x, gt, options, theta, draw, features, database, measure)


def gram_patch_loss(
    sr: Tensor,
    gt: Tensor,
    options: TextureOptions,
    *,
    theta: Tensor | None = None,
    draw: Tensor | None = None,
    features: FeatureMap | None = None,
    database: Database | None = None,
    targets: Targets | None = None,
    report: dict[str, Tensor] | None = None,
) -> Tensor:
    r"""Return the mean difference between the patches of SR and their targets.

    With the Gram matrix G, the i-th patch :math:`e_i` of SR and its target :math:`p_i^*` (see `choose_targets`),

    .. math::
        L_{PT} = \mathrm{mean}_i |G(e_i) - G(p_i^*)|

    (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098). All arithmetic is in at least float32, also under autocast.

    Args:
        sr: see `choose_targets`, with gradient.
        gt: see `choose_targets`.
        options: see `choose_targets`.
        theta: see `choose_targets`.
        draw: see `choose_targets`.
        features: see `choose_targets`.
        database: see `choose_targets`.
        targets: of `choose_targets` for these images; None to choose them here.
        report: filled with the `Targets.statistics`.

    Returns:
        A scalar in at least float32, with a gradient for ``sr`` only.

    Raises:
        ValueError: see `choose_targets`.

    Example:
        >>> import torch
        >>> gt = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> float(gram_patch_loss(gt, gt, TextureOptions()))
        0.0
    """
    sr, gt = _checked(sr, gt, options, features)
    maps = sr if features is None else features(sr)
    x = _describe(maps, options.loss_on, options)
    if targets is not None and any(getattr(targets.options, name) != getattr(options, name) for name in DESCRIBED_BY):
        raise ValueError(f"targets: were chosen with other options; these must agree: {', '.join(DESCRIBED_BY)}")
    if targets is not None and targets.index.shape != x.shape[:2]:
        raise ValueError(f"targets: {tuple(targets.index.shape)} for {tuple(x.shape[:2])} patches of SR")
    if targets is None:
        same = options.loss_on == options.select_by
        by = x if same else _describe(maps.detach(), options.select_by, options)
        targets = _choose(by, gt, options, theta, draw, features, database, report is not None)
    if report is not None:
        report.update(targets.statistics())
    with autocast_off(x.device):
        with torch.no_grad():
            y = targets.describe(options.loss_on).to(x.dtype)
        if options.loss_on == "gram":
            return gram_difference(x, y, maps.shape[1], options.criterion)
        return (x - y).square().mean() if options.criterion == "mse" else (x - y).abs().mean()


@untraced
@torch.no_grad()
def _choose(
    x: Tensor,
    gt: Tensor,
    options: TextureOptions,
    theta: Tensor | None,
    draw: Tensor | None,
    features: FeatureMap | None,
    database: Database | None,
    measure: bool,
) -> Targets:
    """Choose the targets for the descriptions x (N, P, D) of SR's patches, by ``select_by``."""
    x = x.detach()
    if options.top_k > 1 and draw is None:
        draw = torch.rand(x.shape[:2])
    if draw is not None and options.top_k > 1 and draw.shape != x.shape[:2]:
        raise ValueError(f"draw: expected {tuple(x.shape[:2])} numbers, got {tuple(draw.shape)}")
    candidates = _candidates(gt, _theta(gt, theta, options), options, features)
    only = database is not None and options.database_use == "only"
    allowed = None if options.radius is None else _neighbourhood(candidates, options.radius)
    count, parts = sum(candidates.counts()), []
    at_a_time = max(1, MOST_NUMBERS // (count * x.shape[2]))
    for top in range(0, len(x), at_a_time):
        part = slice(top, top + at_a_time)
        # GT's patches are part of the query even if only the database is searched.
        images = [image[part] for image in candidates.images[: 1 if only else None]]
        vectors = torch.cat([_describe(image, options.select_by, options) for image in images], dim=1).to(x.dtype)
        y = vectors[:, : x.shape[1]]  # (n, K, D) -> (n, P, D): GT's patches come first
        query = (options.alpha * x[part] + options.beta * y) / (options.alpha + options.beta)
        found = [] if only else [nearest_several(query, vectors, options.top_k, options.chunk_size, allowed)]
        if database is not None:
            squared, number = database.search(query.flatten(0, 1), options.top_k)
            shape = (*query.shape[:2], -1)
            found.append((squared.view(shape).to(query.dtype), number.view(shape) + count))
        index = _draw(found, options.top_k, None if draw is None else draw[part])
        chosen = _describe_chosen(vectors, index, database, count)
        distances = [(chosen - x[part]).norm(dim=2), (y - x[part]).norm(dim=2)] if measure else []
        parts.append([index, chosen, *distances])
    index, chosen, *distances = (
        torch.cat(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)
    )
    return Targets(index, candidates, options, chosen, database, *distances)


def _describe(image: Tensor, by: str, options: TextureOptions) -> Tensor:
    return describe_patches(image, options.patch_size, by, options.normalize, options.center, options.stride)


def _checked(sr: Tensor, gt: Tensor, options: TextureOptions, features: FeatureMap | None) -> tuple[Tensor, ...]:
    """Return SR and GT in one dtype of at least float32.

    Raises:
        ValueError: unless they have one shape, and patches cover it without a remainder.
    """
    reduction = 1 if features is None else features.reduction
    patch_size, step = options.patch_size * reduction, (options.stride or options.patch_size) * reduction
    check_image(sr, "sr")
    if sr.shape != gt.shape:
        raise ValueError(f"sr and gt must have one shape, got {tuple(sr.shape)} and {tuple(gt.shape)}")
    # Pixels after the last whole patch would get no gradient.
    if any(side < patch_size or (side - patch_size) % step for side in sr.shape[2:]):
        distance = "" if step == patch_size else f", {step} px from one to the next"
        advice = "a multiple of patch_size" if step == patch_size else "patch_size and a multiple of stride"
        raise ValueError(
            f"sr of {sr.shape[2]}x{sr.shape[3]} px cannot be cut into whole patches of {patch_size} px{distance}; "
            f"choose a crop size that is {advice}"
        )
    return at_least_float32(sr, gt)


def _theta(gt: Tensor, theta: Tensor | None, options: TextureOptions) -> Tensor:
    shape = (gt.shape[0], options.affine_copies, 2, 3)
    if theta is None:
        return torch.eye(2, 3) + options.affine_magnitude * torch.randn(shape)
    if theta.shape != shape:
        raise ValueError(f"theta: expected shape {shape}, got {tuple(theta.shape)}")
    return theta


def _candidates(gt: Tensor, theta: Tensor, options: TextureOptions, features: FeatureMap | None) -> CandidateSet:
    return candidate_set(
        gt,
        theta,
        options.patch_size,
        options.downsample,
        options.antialias,
        options.affine_sampling,
        options.stride,
        features,
        1 if features is None else features.reduction,
    )


def _neighbourhood(candidates: CandidateSet, radius: float) -> Neighbourhood:
    height, width = candidates.images[0].shape[2:]
    centres = patch_centres(height, width, candidates.patch_size, height, width, candidates.stride)
    return Neighbourhood(centres, candidates.centres(), radius * candidates.patch_size)


def _draw(found: list[tuple[Tensor, Tensor]], top_k: int, draw: Tensor | None) -> Tensor:
    """Return the nearest of all sources, or one of the nearest, (N, P), from (N, P, k) of each source."""
    squared, index = found[0]
    if len(found) > 1:
        squared, index = (torch.cat(column, dim=2) for column in zip(*found, strict=True))
        # Stable: at equal distances a candidate of the crop comes first.
        squared, order = squared.sort(dim=2, stable=True)
        index = index.gather(2, order)
    if top_k == 1:
        return index[:, :, 0]
    assert draw is not None
    available = torch.isfinite(squared[:, :, :top_k]).sum(dim=2).clamp(min=1)
    rank = (draw.to(squared) * available).long().minimum(available - 1)
    return index.gather(2, rank[:, :, None])[:, :, 0]


def _describe_chosen(vectors: Tensor, index: Tensor, database: Database | None, count: int) -> Tensor:
    """Return the descriptions (N, P, D) of candidates by index; indices of at least ``count`` are in the database."""
    own = index.clamp(max=vectors.shape[1] - 1)[..., None].expand(-1, -1, vectors.shape[2])
    if database is None:
        return vectors.gather(1, own)
    theirs = database.grams((index - count).clamp(min=0)).to(vectors)
    return torch.where((index >= count)[..., None], theirs, vectors.gather(1, own))
