"""Nearest neighbours by a k-d tree for each sample, on a CPU."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Points in a leaf: the fastest of 8, 12, 16, 24 and 32 at some 5,000 candidates of six dimensions, building included.
LEAF_SIZE = 32
# Places in the table that finds equal candidates, as a multiple of their number, which is a power of 2.
ROOM = 16


def has_trees() -> bool:
    """Whether scipy is there."""
    try:
        import scipy.spatial  # noqa: F401
    except ImportError:
        return False
    return True


def search_by_trees(queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `nearest_several`, for finite points on the CPU; distances are computed in float64.

    The samples are spread over as many threads as torch uses.
    """
    threads = torch.get_num_threads()
    samples = [(q.numpy(), c.numpy()) for q, c in zip(queries.detach(), candidates.detach(), strict=True)]
    at_a_time = min(threads, len(samples))
    workers = max(1, threads // at_a_time)
    if at_a_time == 1:
        found = [_search(q, c, k, workers) for q, c in samples]
    else:
        with ThreadPoolExecutor(at_a_time) as pool:
            found = list(pool.map(lambda pair: _search(pair[0], pair[1], k, workers), samples))
    squared, index = (torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True))
    return squared.to(queries.dtype), index


def _search(
    queries: NDArray[Any], candidates: NDArray[Any], k: int, workers: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(Q, D) and (K, D) -> squared distances and indices, (Q, k)."""
    from scipy.spatial import cKDTree

    points, numbers = candidates, np.arange(len(candidates))
    if k == 1:
        # Of equal candidates, which flat regions have many of, the first is the one to find. And a tree cannot
        # divide them, so that all would be measured.
        numbers = np.flatnonzero(first_equal(candidates) == numbers)
        points = candidates[numbers]
    tree = cKDTree(points.astype(np.float64), leafsize=LEAF_SIZE)
    distance, nearest = tree.query(queries.astype(np.float64), k=[*range(1, k + 1)], workers=workers)
    nearest[nearest == len(numbers)] = 0  # how the tree says that there are not so many; the distance is infinite
    return np.square(distance), numbers[nearest]


def first_equal(rows: NDArray[Any]) -> NDArray[np.int64]:
    """For each row of (K, D) the index of the first row that equals it; a hash table, so that nothing is sorted.

    Example:
        >>> first_equal(np.array([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0], [-0.0, 0.0]])).tolist()
        [0, 1, 0, 1]
    """
    bits = (rows + 0.0).view(np.int32 if rows.itemsize == 4 else np.int64)  # makes one zero of the two
    return _first_equal(np.ascontiguousarray(bits.T).astype(np.uint64), 0x9E3779B97F4A7C15)


def _first_equal(columns: NDArray[np.uint64], factor: int) -> NDArray[np.int64]:
    """The same of (D, K) bits, hashed by an odd factor."""
    count = columns.shape[1]
    code = np.zeros(count, np.uint64)
    for column in columns:
        code += column
        code *= np.uint64(factor)
        code ^= code >> np.uint64(29)
    code *= np.uint64(factor)
    bits = (ROOM * count).bit_length()
    slot = (code >> np.uint64(64 - bits)).astype(np.intp)
    table = np.empty(2**bits, np.int64)  # only places that are written are read
    numbers = np.arange(count)
    table[slot[::-1]] = numbers[::-1]  # of all that fall into a slot, the first is written last
    first = table[slot]
    # Rows that share a slot without being equal; what equals them is among them.
    others = np.flatnonzero((columns != columns[:, first]).any(axis=0))
    if len(others):
        first[others] = others[_first_equal(columns[:, others], factor * 0xD1342543DE82EF95 % 2**64)]
    return first
