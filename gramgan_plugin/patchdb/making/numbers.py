"""Derive random numbers from their purpose alone, so that the order of reading does not change them."""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def mixed(words: Words) -> Words:
    """Hash 64-bit words one to one (the finaliser of splitmix64).

    Example:
        >>> len(set(mixed(np.arange(1000, dtype=np.uint64)).tolist()))
        1000
    """
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def word(*parts: int) -> Words:
    """Return a (1,) word that depends on all the numbers and their order."""
    found = np.zeros(1, np.uint64)
    for part in parts:
        found = mixed(found ^ np.array([part % 2**64], np.uint64))
    return found


def rows_mixed(rows: NDArray[np.int64]) -> Words:
    """Hash rows of integers, (N, K) -> (N,) words; collisions are improbable."""
    found = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        found = mixed(found ^ column.astype(np.int64).view(np.uint64))
    return found
