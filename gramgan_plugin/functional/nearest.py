"""Exact nearest-neighbour search among candidate patches: which of the searches serves, and what all have in common."""

import torch
from torch import Tensor

from gramgan_plugin.functional.nearest_dense import Neighbourhood, on_cpu, search_allowed, search_by_differences
from gramgan_plugin.functional.nearest_products import search_by_products
from gramgan_plugin.functional.nearest_tree import has_trees, search_by_trees
from gramgan_plugin.functional.precision import at_least_float32, autocast_off
from gramgan_plugin.functional.untraced import untraced

# Up to how many dimensions a k-d tree beats other searches on photos' patches, and differences beat products.
FEW_DIMENSIONS = 8
# Up to how many distances a sample is searched by measuring each.
FEW_DISTANCES = 2**18


@torch.no_grad()
def nearest_candidates(
    queries: Tensor, candidates: Tensor, chunk_size: int = 2**22, allowed: Neighbourhood | None = None
) -> Tensor:
    """Index of the candidate at the smallest Euclidean distance from each query; see `nearest_several`.

    Args:
        queries: (N, Q, D).
        candidates: (N, K, D).
        chunk_size: the most distances held in memory at a time.
        allowed: which candidates each query may choose; at least one for each query. Any, by default.

    Returns:
        (N, Q), int64: the lowest index among equal candidates. A query that is not finite gets some index.

    Raises:
        ValueError: if the shapes do not fit together, there is no candidate, or ``chunk_size`` is below 1.

    Example:
        >>> import torch
        >>> nearest_candidates(torch.tensor([[[0.2], [0.9]]]), torch.tensor([[[0.0], [1.0], [1.0]]]))
        tensor([[0, 1]])
    """
    return nearest_several(queries, candidates, 1, chunk_size, allowed)[1].squeeze(2)


@untraced
@torch.no_grad()
def nearest_several(
    queries: Tensor, candidates: Tensor, k: int = 1, chunk_size: int = 2**22, allowed: Neighbourhood | None = None
) -> tuple[Tensor, Tensor]:
    """The k candidates at the smallest Euclidean distances from each query; the search is exact.

    Which search serves depends on the numbers. On a CPU, many points of few dimensions are searched by a k-d tree in
    float64 (where scipy is there), many points of more dimensions by matrix products, after which all that is within
    the products' rounding error of the smallest is measured again by differences. On a GPU, few dimensions are
    searched by differences, a block at a time; more dimensions by products in float64, with nothing waiting for the
    GPU. Few points, and neighbourhoods, are searched by differences everywhere. Expanded squares alone, in float32
    (as in `torch.cdist`'s default), get about 1 % of the neighbours wrong.

    Never are all distances held at a time: ``chunk_size`` bounds them, and on a CPU also the size of its cache.

    Args:
        queries: (N, Q, D).
        candidates: (N, K, D).
        k: how many, at least 1.
        chunk_size: the most distances held in memory at a time.
        allowed: which candidates each query may choose. Any, by default.

    Returns:
        Squared distances (N, Q, k) in at least float32, ascending, and indices (N, Q, k), int64. Where there are
        fewer than k candidates the last distances are infinite, and their indices 0. The order of equally near ones
        is that of their indices for ``k = 1`` and equal candidates, else any.

    Raises:
        ValueError: if the shapes do not fit together, there is no candidate, or ``k`` or ``chunk_size`` is below 1.
    """
    _check(queries, candidates, k, chunk_size)
    queries, candidates = at_least_float32(queries, candidates)
    if 0 in queries.shape[:2]:
        shape = (*queries.shape[:2], k)
        return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.long)
    with autocast_off(queries.device):
        if allowed is not None:
            return search_allowed(queries, candidates, k, chunk_size, allowed)
        low, here = queries.shape[2] <= FEW_DIMENSIONS, on_cpu(queries)
        if queries.shape[1] * candidates.shape[1] < FEW_DISTANCES or (low and not here):
            return search_by_differences(queries, candidates, k, chunk_size)
        if not here:
            return search_by_products(queries, candidates, k, chunk_size)
        if not (torch.isfinite(queries).all() and torch.isfinite(candidates).all()):
            # A step that has such points is not taken in the end, but it must not fail here.
            return search_by_differences(queries, candidates, k, chunk_size)
        if low and has_trees():
            return search_by_trees(queries, candidates, k)
        return search_by_products(queries, candidates, k, chunk_size)


def _check(queries: Tensor, candidates: Tensor, k: int, chunk_size: int) -> None:
    if queries.dim() != 3 or candidates.dim() != 3 or queries.shape[::2] != candidates.shape[::2]:
        raise ValueError(
            f"expected queries (N, Q, D) and candidates (N, K, D), "
            f"got {tuple(queries.shape)} and {tuple(candidates.shape)}"
        )
    if candidates.shape[1] == 0:
        raise ValueError("there is no candidate to choose from")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
