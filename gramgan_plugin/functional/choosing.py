"""The choice of a candidate for each patch of SR, from descriptions: the crop's own, a database's, or both."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gramgan_plugin.functional.candidates import CandidateSet
from gramgan_plugin.functional.description import Description
from gramgan_plugin.functional.nearest import Neighbourhood, nearest_several
from gramgan_plugin.functional.patches import patch_centres
from gramgan_plugin.functional.selection import Database, Selection
from gramgan_plugin.functional.untraced import untraced

# Numbers of candidates' descriptions held at a time; of a sample at least.
DESCRIBED = 2**24


@untraced
@torch.no_grad()
def choose(
    x: Tensor,
    candidates: CandidateSet,
    how: Description,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    radius: float | None = None,
    top_k: int = 1,
    draw: Tensor | None = None,
    database: Database | None = None,
    database_only: bool = False,
    measure: bool = False,
    chunk_size: int = 2**22,
) -> Selection:
    """As `select_candidates`, for SR's patches described already.

    Args:
        x: (N, P, D), what ``how`` gives for SR.
        candidates: the candidates of the same crops.
        how: what is compared.
        alpha: weight of the distance to the SR patch.
        beta: weight of the distance to the GT patch.
        radius: see `select_candidates`.
        top_k: see `select_candidates`.
        draw: see `select_candidates`.
        database: see `select_candidates`.
        database_only: see `select_candidates`.
        measure: see `select_candidates`.
        chunk_size: see `select_candidates`.

    Returns:
        The chosen candidates, without gradient.

    Raises:
        ValueError: if ``top_k`` is above 1 and ``draw`` is missing or of another shape.
    """
    if top_k > 1 and (draw is None or draw.shape != x.shape[:2]):
        raise ValueError(f"draw: expected {tuple(x.shape[:2])} numbers to draw one of the {top_k} nearest by")
    allowed = None if radius is None else _neighbourhood(candidates, radius)
    x = x.detach()
    parts = []
    at_a_time = max(1, DESCRIBED // (sum(candidates.counts()) * x.shape[2]))
    for top in range(0, len(x), at_a_time):
        part = slice(top, top + at_a_time)
        own = candidates.samples(part)
        if database_only:  # GT's own patches are the anchor all the same
            own = CandidateSet(own.images[:1], own.kinds[:1], own.patch_size, own.stride)
        vectors = own.describe(how.by, how.normalize, how.center).to(x.dtype)  # (n, K, D)
        y = vectors[:, : x.shape[1]]  # GT's patches come first
        query = (alpha * x[part] + beta * y) / (alpha + beta)
        found = [] if database_only else [nearest_several(query, vectors, top_k, chunk_size, allowed)]
        if database is not None:
            squared, number = database.search(query.flatten(0, 1), top_k)
            shape = (*query.shape[:2], -1)
            found.append((squared.view(shape).to(query.dtype), number.view(shape) + sum(candidates.counts())))
        index = _draw(found, top_k, None if draw is None else draw[part])
        chosen = _chosen_vectors(vectors, index, database, sum(candidates.counts()))
        distances = [(chosen - x[part]).norm(dim=2), (y - x[part]).norm(dim=2)] if measure else []
        parts.append([index, chosen, *distances])
    index, chosen, *distances = (
        torch.cat(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)
    )
    return Selection(index, candidates, how, chosen, database, *distances)


def _neighbourhood(candidates: CandidateSet, radius: float) -> Neighbourhood:
    height, width = candidates.images[0].shape[2:]
    centres = patch_centres(height, width, candidates.patch_size, height, width, candidates.stride)
    return Neighbourhood(centres, candidates.centres(), radius * candidates.patch_size)


def _draw(found: Sequence[tuple[Tensor, Tensor]], top_k: int, draw: Tensor | None) -> Tensor:
    """(N, P): of the nearest ones of each source, (N, P, k) each, the nearest of all or one of the nearest."""
    squared, index = found[0]
    if len(found) > 1:
        squared, index = (torch.cat(column, dim=2) for column in zip(*found, strict=True))
        # Stable: of equally near ones a candidate of the crop.
        squared, order = squared.sort(dim=2, stable=True)
        index = index.gather(2, order)
    if top_k == 1:
        return index[:, :, 0]
    assert draw is not None
    there = torch.isfinite(squared[:, :, :top_k]).sum(dim=2).clamp(min=1)
    rank = (draw.to(squared) * there).long().minimum(there - 1)
    return index.gather(2, rank[:, :, None])[:, :, 0]


def _chosen_vectors(vectors: Tensor, index: Tensor, database: Database | None, count: int) -> Tensor:
    """(N, P, D): the descriptions of the candidates of these numbers; those from ``count`` on are the database's."""
    own = index.clamp(max=vectors.shape[1] - 1)[..., None].expand(-1, -1, vectors.shape[2])
    if database is None:
        return vectors.gather(1, own)
    theirs = database.grams((index - count).clamp(min=0)).to(vectors)
    return torch.where((index >= count)[..., None], theirs, vectors.gather(1, own))
