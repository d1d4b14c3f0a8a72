"""Exact search with a k-d tree, for few dimensions, on a CPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.search.neighbours import Found, sample

# Points in a leaf: for a tree that is used once (its making counts), and for one that is used often.
LEAF_SIZE, OFTEN_LEAF_SIZE = 32, 24
# Queries for each further thread.
QUERIES_OF_A_THREAD = 1024
# Cells along each of three axes, by which the points of a tree are ordered; as many as numpy sorts in linear time.
CELLS = 40
# Numbers rotated at a time: so few that they stay in the processor's cache.
BLOCK = 2**16
# Slots of the hash table for each row, a power of 2 (fewer for many rows), and the maximum of its size in bits.
SLOTS_PER_ROW = 16
MOST_BITS = 22


def has_trees() -> bool:
    """Return whether scipy is installed."""
    try:
        import scipy.spatial  # noqa: F401
    except ImportError:
        return False
    return True


class TreeSearch:
    """A k-d tree in float64 over the distinct rows.

    Two things make a tree faster that is used often. Gram vectors lie along a line (brightness) and close to a plane:
    rotated to their principal axes, the tree's boxes fit them better (12 times as fast for 136 numbers). And points
    stored in the order of cells along the first three axes, with queries sorted along the first, use the processor's
    cache better.

    Args:
        rows: (N, D) on a CPU, finite; not kept.
        often: whether the tree is used often, so that a slower construction pays.

    Example:
        >>> tree = TreeSearch(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
        >>> found = tree.search(torch.zeros(1, 2), k=3)
        >>> found.rows.tolist(), found.squared.round(decimals=6).tolist()
        ([[0, 2, 1]], [[0.0, 0.0, 25.0]])
    """

    def __init__(self, rows: Tensor, often: bool = True) -> None:
        from scipy.spatial import cKDTree

        array = rows.numpy()
        first = first_equal(array)
        is_first = first == np.arange(len(array))
        # A tree cannot split equal rows, which flat regions have many of; all of them would be measured.
        self.numbers = np.flatnonzero(is_first)
        copies = np.flatnonzero(~is_first)
        self.copies = copies[np.argsort(first[copies], kind="stable")]
        self.originals = first[self.copies]  # ascending
        self.rotation = principal_axes(rows) if often else None
        if often:
            self.numbers = np.take(self.numbers, np.argsort(self._cells(array, sample(rows)), kind="stable"))
        leaf_size = OFTEN_LEAF_SIZE if often else LEAF_SIZE
        self.tree: Any = cKDTree(self._points(array), leafsize=leaf_size)  # keeps the points without a copy

    def search(self, queries: Tensor, k: int, threads: int | None = None) -> Found:
        """Return the k nearest rows of each query.

        Args:
            queries: (M, D) on a CPU, finite.
            k: at most N.
            threads: number of threads; None for a number that fits the queries, at most torch's.

        Returns:
            (M, k) each: the result of comparing each query with all rows in float64, up to rounding if the rows are
            rotated. Of equal rows the lowest index comes first; of different rows that are equally near, any.
        """
        if threads is None:
            threads = max(1, min(torch.get_num_threads(), len(queries) // QUERIES_OF_A_THREAD))
        # In numpy: torch's threads stay awake for some milliseconds and would slow down the search.
        rotated = self._rotated(queries.numpy())
        order = None if self.rotation is None else np.argsort(rotated[:, 0])
        ranks = [*range(1, min(k, self.tree.n) + 1)]  # a list gives (M, k) also for k = 1
        distance, point = self.tree.query(rotated if order is None else rotated[order], ranks, workers=threads)
        squared, index = np.square(distance), self.numbers[point]
        if k > 1 and len(self.copies):
            some = np.isin(index, self.originals).any(axis=1)
            full = self._with_copies(squared[some], index[some], k)
            squared, index = (np.pad(part, ((0, 0), (0, k - len(ranks)))) for part in (squared, index))
            squared[some], index[some] = full
        if order is not None:
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            squared, index = squared[back], index[back]
        return Found(torch.from_numpy(squared), torch.from_numpy(index))

    def _with_copies(
        self, squared: NDArray[np.float64], index: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Insert the copies of each row after it: (M, c) -> (M, k)."""
        begin = np.searchsorted(self.originals, index, "left")
        many = 1 + np.searchsorted(self.originals, index, "right") - begin
        upto = np.cumsum(many, axis=1)
        rank = np.arange(k)
        place = (upto[:, :, None] <= rank).sum(axis=1)  # (M, c, k) -> (M, k): whose copy the r-th neighbour is

        def at_place(values: NDArray[Any]) -> NDArray[Any]:
            return np.take_along_axis(values, place, 1)

        nth = rank - at_place(upto - many)  # 0 is the row itself
        copy = self.copies[np.clip(at_place(begin) + nth - 1, 0, len(self.copies) - 1)]
        return at_place(squared), np.where(nth == 0, at_place(index), copy)

    def _cells(self, array: NDArray[Any], some: Tensor) -> NDArray[np.uint16]:
        """Return the cell of each distinct row; along each axis the cells hold equally many of ``some``."""
        edges = np.quantile(self._rotated(some.numpy(), 3), np.arange(1, CELLS) / CELLS, axis=0)
        cells = np.zeros(len(self.numbers), np.uint16)
        step = max(1, BLOCK // array.shape[1])
        for top in range(0, len(cells), step):
            part = slice(top, top + step)
            for axis, place in zip(edges.T, self._rotated(np.take(array, self.numbers[part], 0), 3).T, strict=True):
                cells[part] = cells[part] * CELLS + np.searchsorted(axis, place).astype(np.uint16)
        return cells

    def _points(self, array: NDArray[Any]) -> NDArray[np.float64]:
        """Return the distinct rows in float64, rotated, in the order of ``numbers``."""
        points = np.empty((len(self.numbers), array.shape[1]))
        step = max(1, BLOCK // array.shape[1])
        for top in range(0, len(points), step):
            points[top : top + step] = self._rotated(np.take(array, self.numbers[top : top + step], 0))
        return points

    def _rotated(self, points: NDArray[Any], count: int | None = None) -> NDArray[np.float64]:
        """Return (n, D) points in float64, along the first ``count`` axes or all."""
        points = points.astype(np.float64)
        if self.rotation is None:
            return points
        mean, axes = self.rotation
        rotated: NDArray[np.float64] = (points - mean) @ axes[:, :count]
        return rotated


def principal_axes(rows: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the principal axes of (N, D) rows, from an evenly spread sample.

    Returns:
        The mean (D,), and the axes as columns of an orthogonal (D, D) matrix, the largest variance first.
    """
    some = sample(rows).numpy().astype(np.float64)
    mean = some.mean(axis=0)
    some -= mean
    _, axes = np.linalg.eigh(some.T @ some)  # in the order of ascending variance
    return mean, np.ascontiguousarray(axes[:, ::-1])


def first_equal(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each row of (K, D) the index of the first equal row. A hash table is used: nothing is sorted.

    Example:
        >>> first_equal(np.array([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0], [-0.0, 0.0]])).tolist()
        [0, 1, 0, 1]
    """
    return _first_equal(np.ascontiguousarray(rows.T), 0x9E3779B97F4A7C15)


def _first_equal(columns: NDArray[Any], factor: int) -> NDArray[np.int64]:
    """Compute `first_equal` of (D, K), hashed with an odd factor."""
    count = columns.shape[1]
    code = np.zeros(count, np.uint64)
    for column in columns:
        bits = (column + 0.0).view(np.int32 if columns.itemsize == 4 else np.int64)  # turns -0.0 into 0.0
        code += bits.astype(np.uint64)
        code *= np.uint64(factor)
        code ^= code >> np.uint64(29)
    code *= np.uint64(factor)
    bits_of_slot = min((SLOTS_PER_ROW * count).bit_length(), max(MOST_BITS, 1 + count.bit_length()))
    slot = (code >> np.uint64(64 - bits_of_slot)).astype(np.intp)
    table = np.empty(2**bits_of_slot, np.int64)  # only written slots are read
    numbers = np.arange(count)
    table[slot[::-1]] = numbers[::-1]  # the first row of a slot is written last
    first = table[slot]
    # Unequal rows in the same slot; rows equal to them are among them.
    unequal = np.zeros(count, bool)
    for column in columns:
        unequal |= column != column[first]
    others = np.flatnonzero(unequal)
    if len(others):
        first[others] = others[_first_equal(columns[:, others], factor * 0xD1342543DE82EF95 % 2**64)]
    return first
