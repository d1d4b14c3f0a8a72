"""Exact search by a k-d tree, for Gram vectors of few dimensions: made in memory from a database, never written."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.patchdb.curve import lay_down, principal_axes
from gramgan_plugin.patchdb.neighbours import Found, Rows

# Points in a leaf. Of 8 to 64, 16 is the fastest by a little at 100 thousand points and 32 at 10 million.
LEAF_SIZE = 24
# A thread more for each so many queries.
QUERIES_OF_A_THREAD = 1024


class TreeSearch:
    """A k-d tree in float64 over the rows of a database.

    Two things make it faster than a plain tree over the same rows. Gram vectors lie along a line (brightness) and
    close to a plane; turned into their principal axes, the tree's boxes fit them better. And the points are laid
    down along a space-filling curve and the queries are asked in the order of the first axis, so that what is needed
    next is likely to be in the processor's cache.

    Args:
        rows: the database; not needed once the tree is made.

    Example:
        >>> tree = TreeSearch(Rows(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]], np.float32)))
        >>> found = tree.search(torch.zeros(1, 2), k=3)
        >>> found.rows.tolist(), found.squared.round(decimals=6).tolist()
        ([[0, 2, 1]], [[0.0, 0.0, 25.0]])
    """

    exact = True

    def __init__(self, rows: Rows) -> None:
        from scipy.spatial import cKDTree

        self.mean, self.axes = principal_axes(rows)
        self.members, self.starts = lay_down(rows, self.mean, self.axes)
        points = self._turned(rows, self.members if self.starts is None else self.members[self.starts[:-1]])
        self.tree: Any = cKDTree(points, leafsize=LEAF_SIZE)  # holds the points themselves, no copy

    def search(self, queries: Tensor, k: int) -> Found:
        """The k nearest rows of each query.

        Args:
            queries: (M, D) on a CPU, finite.
            k: at most N.

        Returns:
            (M, k) each: what comparing each query with all rows in float64 gives, to that type's rounding. Of equal
            rows the lowest index comes first; of different rows that are equally near, any.
        """
        # By numpy: torch's threads stay awake for some milliseconds, in the way of those that search next.
        turned = (queries.numpy().astype(np.float64) - self.mean) @ self.axes
        order = np.argsort(turned[:, 0])
        ranks = list(range(1, min(k, self.tree.n) + 1))  # a list gives (M, k) for k = 1, too
        threads = max(1, min(torch.get_num_threads(), len(order) // QUERIES_OF_A_THREAD))
        distance, point = self.tree.query(turned[order], ranks, workers=threads)
        rows, squared = self._as_rows(distance, point, k)
        found = Found(torch.empty(len(order), k, dtype=torch.float64), torch.empty(len(order), k, dtype=torch.long))
        found.squared.numpy()[order], found.rows.numpy()[order] = squared, rows
        return found

    def _as_rows(
        self, distance: NDArray[np.float64], point: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """The tree's points (M, c) as rows of the database, equal rows being one point: (M, k), squared distances."""
        if self.starts is None:
            return self.members[point], distance**2
        first = self.starts[point]
        if k == 1:
            return self.members[first], distance**2
        copies = self.starts[point + 1] - first
        upto = np.cumsum(copies, axis=1)
        rank = np.arange(k)
        place = (upto[:, :, None] <= rank).sum(axis=1)  # (M, c, k) -> (M, k): of which point the r-th neighbour is
        copy = rank - np.take_along_axis(upto - copies, place, 1)
        rows = self.members[np.take_along_axis(first, place, 1) + copy]
        return rows, np.take_along_axis(distance, place, 1) ** 2

    def _turned(self, rows: Rows, which: NDArray[np.int32]) -> NDArray[np.float64]:
        points = np.empty((len(which), rows.dimensions))
        for top in range(0, len(which), rows.step):
            part = slice(top, top + rows.step)
            points[part] = (rows.array[which[part]] - self.mean) @ self.axes
        return points
