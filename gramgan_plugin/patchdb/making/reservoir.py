"""Keep the chosen patches: of all offered patches those with the smallest priorities, without near-duplicates."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.patchdb.database_manifest import ORIGIN
from gramgan_plugin.patchdb.making.numbers import mixed
from gramgan_plugin.patchdb.store import VARIANTS

RANK_BITS, TIE_BITS = np.uint64(28), np.uint64(36)
HIGHEST_RANK = 2**28 - 1
NO_LIMIT = np.uint64(2**64 - 1)
ROWS_AT_ONCE = 65536


class Rows(NamedTuple):
    """Patches with their origins.

    Attributes:
        patches: (n, p, p, C) uint8.
        origins: (n, 4) int32, as in a database.
        ranks: (n,) int32, as in a database.
    """

    patches: NDArray[np.uint8]
    origins: NDArray[np.int32]
    ranks: NDArray[np.int32]

    def at(self, places: NDArray[np.int64]) -> "Rows":
        """Return the rows at these places."""
        return Rows(self.patches[places], self.origins[places], self.ranks[places])


def cell_words(sha256: Sequence[str]) -> NDArray[np.uint64]:
    """Return a word for each photo and variant.

    Args:
        sha256: hashes of the photos.

    Returns:
        (photos, variants).
    """
    photos = mixed(np.array([int(text[:16], 16) for text in sha256], np.uint64))
    return mixed(photos[:, None] ^ np.arange(len(VARIANTS), dtype=np.uint64))


def priorities(cells: NDArray[np.uint64], ranks: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return the order in which patches are chosen, smallest first: by rank, then by a random number.

    The patches with the smallest priorities are the same number from each photo and variant; where one has fewer,
    the others give more.

    Args:
        cells: (n,), from ``cell_words``.
        ranks: (n,).

    Returns:
        (n,).
    """
    high = ranks.astype(np.uint64)
    return (high << TIE_BITS) | (mixed(high ^ cells) >> RANK_BITS)


class Reservoir:
    """Keeps the ``most`` patches with the smallest priorities and different likenesses, in any order of offers.

    Of patches with the same likeness the one with the smallest priority is kept. Offers are collected up to 1.5 times
    ``most``, then sorted, and the rest is dropped. Each patch takes twenty bytes in memory; its pixels are in a file.

    Args:
        most: number of patches to keep.
        patch_shape: (p, p, C).
        scratch: a temporary file, which the caller deletes.
    """

    def __init__(self, most: int, patch_shape: tuple[int, int, int], scratch: Path) -> None:
        self.most = most
        self.limit = NO_LIMIT  # patches with larger priorities cannot be kept
        self.capacity = most + most // 2 + ROWS_AT_ONCE
        self.count = 0
        self._row = np.dtype([("patch", np.uint8, patch_shape), ("origin", np.int32, ORIGIN), ("rank", np.int32)])
        # Memory that is not written yet costs nothing.
        self._likeness = np.empty(self.capacity, np.uint64)
        self._priority = np.empty(self.capacity, np.uint64)
        self._slot = np.empty(self.capacity, np.int32)
        self._free = np.empty(0, np.int32)  # slots of the file that are free again
        self._file: IO[bytes] = scratch.open("w+b")
        self._used = 0

    @property
    def highest_rank(self) -> int:
        """The highest rank that can still be kept; patches of higher ranks need not be offered."""
        return min(int(self.limit >> TIE_BITS), HIGHEST_RANK)

    def add(self, likeness: NDArray[np.uint64], priority: NDArray[np.uint64], rows: Rows) -> None:
        """Offer patches.

        Args:
            likeness: (n,).
            priority: (n,).
            rows: the n patches.
        """
        for first in range(0, len(priority), ROWS_AT_ONCE):
            if self.count + ROWS_AT_ONCE > self.capacity:
                self.settle()
            chosen = first + np.flatnonzero(priority[first : first + ROWS_AT_ONCE] <= self.limit)
            new = slice(self.count, self.count + len(chosen))
            self._likeness[new], self._priority[new] = likeness[chosen], priority[chosen]
            self._slot[new] = self._store(rows.at(chosen))
            self.count = new.stop

    def settle(self) -> None:
        """Drop the patches that are not kept; ``count`` is then the number of kept patches."""
        likeness, priority, slot = (field[: self.count] for field in (self._likeness, self._priority, self._slot))
        order = np.lexsort((priority, likeness))
        first = np.ones(len(order), bool)
        first[1:] = likeness[order[1:]] != likeness[order[:-1]]
        stays = order[first]
        if len(stays) > self.most:
            stays = stays[np.lexsort((likeness[stays], priority[stays]))[: self.most]]
            self.limit = priority[stays[-1]]
        dropped = np.ones(self.count, bool)
        dropped[stays] = False
        self._free = np.concatenate([self._free, slot[dropped]])
        for field in (likeness, priority, slot):
            field[: len(stays)] = field[stays]
        self.count = len(stays)

    def rows(self, numbers: NDArray[np.int32], at_once: int = ROWS_AT_ONCE) -> Iterator[Rows]:
        """Yield the kept patches in blocks, after ``settle``.

        Args:
            numbers: (photos,), the new number of each photo for ``origins``. Rows are ordered by it, then by variant,
                y, x.
            at_once: rows of a block.
        """
        table, slots = self._table(), self._slot[: self.count]
        origins = np.concatenate([table[part]["origin"] for part in _parts(slots)])
        origins[:, 0] = numbers[origins[:, 0]]
        photo, y, x, variant = origins.T
        for part in _parts(np.lexsort((x, y, variant, photo)), at_once):
            found = table[slots[part]]
            yield Rows(found["patch"], origins[part], np.ascontiguousarray(found["rank"]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _store(self, rows: Rows) -> NDArray[np.int32]:
        """Write rows to the file: first into free slots, then at its end."""
        count = len(rows.ranks)
        reused, self._free = self._free[:count], self._free[count:]
        packed = np.empty(count, self._row)
        packed["patch"], packed["origin"], packed["rank"] = rows
        if len(reused):
            table = self._table()
            table[reused] = packed[: len(reused)]
        # Not memory-mapped, so that a full disk is an error and not a signal.
        self._file.seek(self._used * self._row.itemsize)
        self._file.write(packed[len(reused) :].tobytes())
        new = np.arange(self._used, self._used + count - len(reused), dtype=np.int32)
        self._used += len(new)
        return np.concatenate([reused, new])

    def _table(self) -> NDArray[np.void]:
        self._file.flush()
        return np.memmap(self._file, self._row, "r+", shape=(self._used,))


def _parts(places: NDArray[Any], at_once: int = ROWS_AT_ONCE) -> Iterator[NDArray[Any]]:
    for first in range(0, len(places), at_once):
        yield places[first : first + at_once]
