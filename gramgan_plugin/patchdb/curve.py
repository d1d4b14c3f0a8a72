"""The order in which a k-d tree's points lie in memory: along a space-filling curve, equal points beside each other."""

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.patchdb.neighbours import Rows

# Bits of a place along the curve for each of its three axes.
BITS = 20
# (shift, mask): each step moves half of the bits apart, until there are two zeros after each of 21.
_SPREAD = (
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def principal_axes(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the rows lie and along which directions they vary, from an even sample of them.

    Returns:
        The mean (D,) and the axes as the columns of an orthogonal (D, D) matrix, the direction of most variance first.
    """
    sample = rows.sample().astype(np.float64)
    mean = sample.mean(axis=0)
    sample = sample - mean
    _, axes = np.linalg.eigh(sample.T @ sample)  # in the order of ascending variance
    return mean, np.ascontiguousarray(axes[:, ::-1])


def lay_down(
    rows: Rows, mean: NDArray[np.float64], axes: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.int64] | None]:
    """The order of the rows along a Z-order curve through their first three axes.

    Args:
        rows: the database.
        mean: (D,) of ``principal_axes``.
        axes: (D, D) of ``principal_axes``.

    Returns:
        The rows' numbers (N,) in that order, equal rows beside each other, the lowest number first; and where each
        group of equal rows starts in it, with N at the end, or None if no two rows are equal.
    """
    places = _places(rows, mean, axes[:, :3])
    order = np.argsort(places)
    members = order.astype(np.int32)
    same_place = np.diff(places[order]) == 0
    del places, order
    # Only rows at the same place of the curve can be equal.
    shared = np.flatnonzero(np.append(same_place, False) | np.insert(same_place, 0, False))
    if not len(shared):
        return members, None
    run = np.cumsum(~np.insert(same_place, 0, False)[shared])  # which place it is
    points = rows.array[members[shared]]
    within = np.lexsort((members[shared], *points.T, run))
    members[shared] = members[shared][within]
    points, run = points[within], run[within]
    equal = (points[1:] == points[:-1]).all(axis=1) & (run[1:] == run[:-1])
    if not equal.any():
        return members, None
    is_start = np.ones(len(members) + 1, bool)
    is_start[shared[1:][equal]] = False
    return members, np.flatnonzero(is_start)


def _places(rows: Rows, mean: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.uint64]:
    """(N,): where each row lies along the curve."""
    last = 2**BITS - 1
    # A sample tells the scale; what lies beyond it counts as lying at its end.
    sample = (rows.sample() - mean) @ axes
    low = sample.min(axis=0)
    step = max(float((sample.max(axis=0) - low).max()), 1e-300) / last
    places = np.empty(rows.count, np.uint64)
    for top in range(0, rows.count, rows.step):
        part = slice(top, top + rows.step)
        # Not a matrix product, which may round a row differently at another place: equal rows need equal places.
        turned = sum((rows.array[part, d, None] - mean[d]) * axes[d] for d in range(rows.dimensions))
        cells = np.clip((turned - low) / step, 0, last).astype(np.uint64)
        places[part] = 0
        for axis in range(cells.shape[1]):
            places[part] |= _spread(cells[:, axis]) << np.uint64(axis)
    return places


def _spread(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Put two zeros before each of the lowest 21 bits."""
    for shift, mask in _SPREAD:
        numbers = (numbers | (numbers << np.uint64(shift))) & np.uint64(mask)
    return numbers
