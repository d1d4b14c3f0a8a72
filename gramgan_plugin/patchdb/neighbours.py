"""What the searches share: their result, and measuring distances exactly, by differences in float64."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The most rows of a database that are read or turned at a time, and the most numbers: 32 MiB in float64.
MOST_ROWS, BLOCK = 2**17, 2**22
# The most numbers that are measured at a time on a CPU: what is in between stays in its cache.
MEASURED = 2**17
# The most numbers of a sample of the rows.
SAMPLE = 2**24
# How many more candidates than asked for are measured, so that approximate distances find the right ones.
SPARE = 8

# Takes (M, D) queries in float32 or float64 and a number c of candidates; gives approximate squared distances (M, c),
# ascending, and their rows (M, c), none twice.
Approximate = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Found(NamedTuple):
    """The nearest rows of each query.

    Attributes:
        squared: (M, k) float64, squared distances, ascending.
        rows: (M, k) int64.
    """

    squared: Tensor
    rows: Tensor


class Search(Protocol):
    """A way to find the nearest rows of a database. Queries are finite, k is at least 1 and at most N."""

    exact: bool

    def search(self, queries: Tensor, k: int) -> Found:
        """The k nearest rows of (M, D) queries, on their device."""


class Rows:
    """The Gram vectors of a database, read where they lie (a file mapped into memory, or a GPU).

    Args:
        array: (N, D) float32, finite.
        device: where to hold them; a CPU reads them from the file, a GPU holds a copy.
    """

    def __init__(self, array: NDArray[np.float32], device: torch.device | None = None) -> None:
        self.array = array
        self.count, self.dimensions = array.shape
        self.device = torch.device("cpu") if device is None else device
        self.step = max(1, min(MOST_ROWS, BLOCK // self.dimensions))  # rows to take at a time
        self.held: Tensor | None = None
        if self.device.type != "cpu":
            self.held = torch.empty(self.count, self.dimensions, device=self.device)
            for top in range(0, self.count, self.step):
                self.held[top : top + self.step] = torch.from_numpy(np.array(array[top : top + self.step]))

    def at(self, index: Tensor) -> Tensor:
        """(..., D) float32, for indices on ``device``."""
        if self.held is not None:
            return self.held[index]
        return torch.from_numpy(np.asarray(self.array.take(index.numpy(), axis=0)))

    def sample(self) -> NDArray[np.float32]:
        """(n, D): rows evenly spread, up to 131,072 of them."""
        most = max(1, min(MOST_ROWS, SAMPLE // self.dimensions))
        return self.array[:: -(-self.count // most)]

    def block(self, top: int, size: int) -> Tensor:
        """(size, D) float32, fewer at the end."""
        if self.held is not None:
            return self.held[top : top + size]
        return torch.from_numpy(np.array(self.array[top : top + size]))


def squared_distances(queries: Tensor, points: Tensor) -> Tensor:
    """Sums of squared differences in float64; the last dimension goes, the others broadcast."""
    difference = points.double() - queries.double()
    return difference.square_().sum(dim=-1)


def in_order(squared: Tensor, rows: Tensor, k: int) -> Found:
    """The first k of (M, c) candidates: the nearest first, of equally near ones the lowest index first."""
    rows, order = rows.sort(dim=1)
    squared, again = squared.gather(1, order).sort(dim=1, stable=True)
    return Found(squared[:, :k], rows.gather(1, again)[:, :k])


def measure(queries: Tensor, candidates: Tensor, rows: Rows, k: int) -> Found:
    """The k nearest of each query's candidates.

    Args:
        queries: (M, D).
        candidates: (M, c) rows, none of them twice for a query; -1 stands for none.
        rows: the database.
        k: at most c.

    Returns:
        (M, k) each; infinitely far where there is no further candidate.
    """
    squared = torch.empty(candidates.shape, dtype=torch.float64, device=candidates.device)
    numbers = MEASURED if queries.device.type == "cpu" else BLOCK
    step = max(1, numbers // (candidates.shape[1] * rows.dimensions))
    for top in range(0, len(queries), step):
        part = slice(top, top + step)
        points = rows.at(candidates[part].clamp(min=0))
        squared[part] = squared_distances(queries[part, None], points)
    squared.masked_fill_(candidates < 0, float("inf"))
    return in_order(squared, candidates, k)


def search_exactly(
    passes: Sequence[tuple[Approximate, torch.dtype]], queries: Tensor, centre: Tensor, rows: Rows, k: int
) -> Found:
    """Make a search by expanded squares exact.

    The expansion |q|^2 + |x|^2 - 2 q.x, with q and x taken from ``centre``, is wrong by at most about
    (D + 8) u (|q| + |x|)^2, with u = 2^-24 in float32. A few more than k candidates are looked up and the first k
    measured by differences. If the k-th of them is nearer than any other row can be, by the next candidate's
    approximate distance, they are the nearest. Of queries of which that is not so, all candidates are measured and the
    last one's distance counts; what is then still open goes to the next pass. What the last one finds, in float64,
    counts: there a query is left only if more rows than were looked up are as near, to 14 digits of the vectors'
    squared lengths.

    Args:
        passes: searches, each with the type it computes in, the coarsest first.
        queries: (M, D) float32 or float64.
        centre: (D,) float64, as float32 can hold it.
        rows: the database.
        k: how many are wanted, at most N.
    """
    squared = torch.empty(len(queries), k, dtype=torch.float64, device=queries.device)
    index = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    left = torch.arange(len(queries), device=queries.device)
    wanted = min(k + SPARE, rows.count)
    for approximately, dtype in passes:
        if not len(left):
            break
        approximate, candidates = approximately(queries[left], wanted)
        lengths = _lengths(queries, left, centre)
        rounding = (rows.dimensions + 8) * torch.finfo(dtype).eps / 2
        open_ = torch.arange(len(left), device=left.device)
        for count in (k, wanted):
            asked = left[open_]
            found = measure(queries[asked], candidates[open_, :count], rows, k)
            squared[asked], index[asked] = found
            if count == rows.count:
                return Found(squared, index)
            # A row so far out that its own length makes the error large is farther than this one anyway.
            beyond = approximate[open_, min(count, wanted - 1)].double().clamp(min=0)
            error = rounding * (2 * lengths[open_] + beyond.sqrt()) ** 2
            open_ = open_[~(found.squared[:, -1] < beyond - error)]
        left = left[open_]
    return Found(squared, index)


def _lengths(queries: Tensor, which: Tensor, centre: Tensor) -> Tensor:
    """How far queries are from the centre, rounded up: float64."""
    return (queries[which] - centre.to(queries.dtype)).norm(dim=1).double() * 1.001
