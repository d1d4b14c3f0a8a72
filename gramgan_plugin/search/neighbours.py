"""What the searches share: their result, and distances of single pairs, by differences in float64."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# The most numbers of which differences are taken at a time: on a CPU what is in between stays in its cache.
CPU_NUMBERS, GPU_NUMBERS = 2**17, 2**22
# The most rows of a sample, and the most numbers.
SAMPLE_ROWS, SAMPLE_NUMBERS = 2**17, 2**24


class Found(NamedTuple):
    """The nearest rows of each query.

    Attributes:
        squared: (M, k) float64, squared distances, ascending.
        rows: (M, k) int64.
    """

    squared: Tensor
    rows: Tensor


class Search(Protocol):
    """A way to find the nearest of N rows. Queries are finite, k is at least 1 and at most N."""

    def search(self, queries: Tensor, k: int) -> Found:
        """Return the k nearest rows of (M, D) queries, on their device."""


def sample(rows: Tensor) -> Tensor:
    """Return (n, D) of (N, D) rows, evenly spread, at most 131,072 of them."""
    most = max(1, min(SAMPLE_ROWS, SAMPLE_NUMBERS // rows.shape[1]))
    return rows[:: -(-len(rows) // most)]


def centre_of(rows: Tensor) -> Tensor:
    """Return (D,) float64 of values that float32 has, near the mean of (N, D) rows: from a sample of them."""
    return sample(rows).double().mean(dim=0).float().double()


def squared_distances(queries: Tensor, rows: Tensor, which: Tensor, index: Tensor) -> Tensor:
    """Return the squared distances in float64 of pairs: (M, D), (N, D), (m,) and (m,) -> (m,)."""
    at_a_time = max(1, (CPU_NUMBERS if rows.device.type == "cpu" else GPU_NUMBERS) // rows.shape[1])
    parts = [
        (rows[i].double() - queries[q].double()).square_().sum(dim=1)
        for q, i in zip(which.split(at_a_time), index.split(at_a_time), strict=True)
    ]
    return torch.cat(parts)


def in_order(squared: Tensor, rows: Tensor) -> Found:
    """Return (M, k) rows, none twice for a query, by distance, of equally near ones the lowest index first."""
    rows, order = rows.sort(dim=1)
    squared, again = squared.gather(1, order).sort(dim=1, stable=True)
    return Found(squared, rows.gather(1, again))
