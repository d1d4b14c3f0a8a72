"""What the searches share: their result type, and float64 distances of single pairs."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Numbers whose differences are computed at a time: on a CPU the intermediate results stay in its cache.
CPU_NUMBERS, GPU_NUMBERS = 2**17, 2**22
# Limits of a sample: rows, and numbers in them.
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
    """A search in N rows. Queries are finite, k is at least 1 and at most N."""

    def search(self, queries: Tensor, k: int) -> Found:
        """Return the k nearest rows of (M, D) queries, on their device."""


def sample(rows: Tensor) -> Tensor:
    """Return (n, D) evenly spread rows of (N, D), at most 131,072."""
    most = max(1, min(SAMPLE_ROWS, SAMPLE_NUMBERS // rows.shape[1]))
    return rows[:: -(-len(rows) // most)]


def centre_of(rows: Tensor) -> Tensor:
    """Return the mean (D,) of a sample of (N, D) rows, float64 but rounded to float32 values."""
    return sample(rows).double().mean(dim=0).float().double()


def squared_distances(queries: Tensor, rows: Tensor, which: Tensor, index: Tensor) -> Tensor:
    """Return the squared distances of pairs in float64: (M, D), (N, D), (m,), (m,) -> (m,)."""
    at_a_time = max(1, (CPU_NUMBERS if rows.device.type == "cpu" else GPU_NUMBERS) // rows.shape[1])
    parts = [
        (rows[i].double() - queries[q].double()).square_().sum(dim=1)
        for q, i in zip(which.split(at_a_time), index.split(at_a_time), strict=True)
    ]
    return torch.cat(parts)


def in_order(squared: Tensor, rows: Tensor) -> Found:
    """Sort (M, k) different rows by distance, then by index."""
    rows, order = rows.sort(dim=1)
    squared, again = squared.gather(1, order).sort(dim=1, stable=True)
    return Found(squared, rows.gather(1, again))
