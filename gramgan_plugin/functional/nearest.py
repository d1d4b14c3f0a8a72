"""Exact nearest-neighbour search among candidate patches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gramgan_plugin.functional.precision import at_least_float32

# Up to how many dimensions a k-d tree beats an exhaustive search on photos' patches, and from how many distances on.
TREE_DIMENSIONS = 8
TREE_DISTANCES = 2**18
# Points in a leaf; the fastest of 8, 10, 16 and 32 at some 9,000 candidates of six dimensions.
LEAF_SIZE = 32
# Entries of a block of distances on a CPU: two float32 buffers of this size stay in the second-level cache.
CPU_BLOCK = 2**17


@dataclass(frozen=True)
class Neighbourhood:
    """Which candidates a query may choose: those whose centre is within ``radius`` of its own (Chebyshev).

    Attributes:
        query_centres: (Q, 2), float64.
        candidate_centres: (K, 2), float64.
        radius: largest distance allowed, in the units of the centres.
    """

    query_centres: Tensor
    candidate_centres: Tensor
    radius: float

    def block(self, queries: slice, candidates: slice) -> Tensor:
        """(q, k), bool: which of these candidates are allowed for which of these queries."""
        allowed = None
        for axis in range(2):
            offset = self.query_centres[queries, axis, None] - self.candidate_centres[None, candidates, axis]
            near = offset.abs() <= self.radius * (1 + 1e-9)  # centres of copies at odd ratios are not exact
            allowed = near if allowed is None else allowed & near
        assert allowed is not None
        return allowed


@torch.no_grad()
def nearest_candidates(
    queries: Tensor, candidates: Tensor, chunk_size: int = 2**20, allowed: Neighbourhood | None = None
) -> Tensor:
    """Index of the candidate at the smallest Euclidean distance from each query; the search is exact.

    On a CPU, many points of few dimensions are searched by a k-d tree in float64 where scipy is there, everything
    else exhaustively. Distances are sums of squared differences; expanded squares (as in `torch.cdist`'s default) get
    about 1 % of the neighbours wrong in float32. Each step of the exhaustive search is one correctly rounded
    operation, so that the result does not depend on ``chunk_size``.

    Args:
        queries: (N, Q, D).
        candidates: (N, K, D).
        chunk_size: the most distances held in memory at a time.
        allowed: which candidates each query may choose; at least one for each query. Any, by default.

    Returns:
        (N, Q), int64: the lowest index among equal candidates; by exhaustive search among all equally near ones. A
        query that is not finite gets some index.

    Raises:
        ValueError: if the shapes do not fit together, there is no candidate, or ``chunk_size`` is below 1.

    Example:
        >>> import torch
        >>> nearest_candidates(torch.tensor([[[0.2], [0.9]]]), torch.tensor([[[0.0], [1.0], [1.0]]]))
        tensor([[0, 1]])
    """
    if queries.dim() != 3 or candidates.dim() != 3 or queries.shape[::2] != candidates.shape[::2]:
        raise ValueError(
            f"expected queries (N, Q, D) and candidates (N, K, D), "
            f"got {tuple(queries.shape)} and {tuple(candidates.shape)}"
        )
    if candidates.shape[1] == 0:
        raise ValueError("there is no candidate to choose from")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    queries, candidates = at_least_float32(queries, candidates)
    if allowed is None and _suits_a_tree(queries, candidates):
        return torch.stack([_search_tree(*pair) for pair in zip(queries, candidates, strict=True)])
    block = min(chunk_size, CPU_BLOCK) if queries.device.type == "cpu" else chunk_size
    index = queries.new_empty(queries.shape[:2], dtype=torch.long)
    for sample in range(queries.shape[0]):
        _search(queries[sample], candidates[sample].t().contiguous(), block, allowed, out=index[sample])
    return index


def _suits_a_tree(queries: Tensor, candidates: Tensor) -> bool:
    few = queries.shape[0] == 0 or queries.shape[1] * candidates.shape[1] < TREE_DISTANCES
    if queries.device.type != "cpu" or few or queries.shape[2] > TREE_DIMENSIONS:
        return False
    try:
        import scipy.spatial  # noqa: F401
    except ImportError:
        return False
    # A tree refuses such points; a step that has them is not taken in the end, but it must not fail here.
    return bool(torch.isfinite(queries).all()) and bool(torch.isfinite(candidates).all())


def _search_tree(queries: Tensor, candidates: Tensor) -> Tensor:
    """Search one sample: queries (Q, D) and candidates (K, D) on the CPU, give (Q,)."""
    from scipy.spatial import cKDTree

    points = candidates.detach().numpy() + 0.0  # (K, D); makes one zero of the two
    # Of equal candidates, which flat regions have many of, the first is the one to find.
    rows = np.ascontiguousarray(points).view(np.dtype((np.void, points.itemsize * points.shape[1]))).ravel()
    _, first = np.unique(rows, return_index=True)
    first.sort()
    tree = cKDTree(points[first].astype(np.float64), leafsize=LEAF_SIZE)
    _, nearest = tree.query(queries.detach().numpy().astype(np.float64), workers=torch.get_num_threads())
    return torch.from_numpy(first[nearest])


def _search(queries: Tensor, candidates: Tensor, block: int, allowed: Neighbourhood | None, out: Tensor) -> None:
    """Search one sample: queries (Q, D) and candidates (D, K), ``block`` distances at a time, fill (Q,)."""
    columns = min(candidates.shape[1], block)
    rows = max(1, min(queries.shape[0], block // columns))
    buffers = queries.new_empty(2, rows * columns)
    for top in range(0, queries.shape[0], rows):
        row_slice = slice(top, top + rows)
        best = best_index = None
        for left in range(0, candidates.shape[1], columns):
            column_slice = slice(left, left + columns)
            distance = _squared_distances(queries[row_slice], candidates[:, column_slice], buffers)
            if allowed is not None:
                distance.masked_fill_(~allowed.block(row_slice, column_slice), float("inf"))
            value, index = distance.min(dim=1)  # the first of equal ones
            if best is None or best_index is None:
                best, best_index = value, index
            else:
                closer = value < best  # not <=: an earlier candidate keeps its place
                best = torch.where(closer, value, best)
                best_index = torch.where(closer, index + left, best_index)
        assert best_index is not None
        out[row_slice] = best_index


def _squared_distances(queries: Tensor, candidates: Tensor, buffers: Tensor) -> Tensor:
    """(q, D), (D, k) -> (q, k), written into the first of the two buffers."""
    shape = (queries.shape[0], candidates.shape[1])
    total, difference = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
    for d in range(candidates.shape[0]):
        out = total if d == 0 else difference
        torch.sub(candidates[d], queries[:, d, None], out=out)
        # Not addcmul: it may or may not fuse the two roundings, by the element's place in the block.
        out.mul_(out)
        if d > 0:
            total.add_(difference)
    return total
