"""Find near-duplicates with a perceptual hash of 64 bits and an index of hashes."""

from collections import defaultdict
from itertools import combinations

import cv2
import numpy as np

from gramgan_plugin.data.images import Image

BITS = 64
SIDE = 32  # pixels of the small version that is transformed
KEPT = 8  # frequencies in each direction: these survive shrinking, compression and small crops


def perceptual_hash(image: Image) -> int:
    """Return a hash that differs in few bits between versions of a photo: which low frequencies are above their median.

    The photo's luma is shrunk to 32x32 pixels, whatever its shape; the lowest 8x8 coefficients of its cosine transform
    are compared with their median.

    Args:
        image: (H, W, 3) BGR.

    Returns:
        64 bits.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:KEPT, :KEPT].ravel()  # (64)
    # Rounded, since the frequencies of a flat picture are rounding errors, which differ between machines.
    low = np.round(low, 2)
    return int("".join("1" if bit else "0" for bit in low > np.median(low)), 2)


class HashIndex:
    """An exact index that finds the nearest hash within a distance without comparing all hashes.

    Hashes that differ in at most d of 64 bits differ in at most ``d // 4`` bits in one of their four 16-bit parts.
    Each part has its own table, in which the few values that near are searched; the hashes found are compared
    completely.

    Args:
        distance: maximum number of different bits.

    Example:
        >>> index = HashIndex(distance=6)
        >>> index.add(0b1111, 7)
        >>> index.nearest(0b1000), index.nearest(0xFFFFFF)
        ((7, 3), None)
    """

    PARTS = 4
    MASK = (1 << BITS // PARTS) - 1

    def __init__(self, distance: int) -> None:
        if not 0 <= distance < BITS:
            raise ValueError(f"distance {distance}: must be from 0 to {BITS - 1}")
        self.distance = distance
        self._numbers: list[int] = []
        self._hashes: list[int] = []
        self._tables: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(self.PARTS)]
        width = BITS // self.PARTS
        # All patterns of at most so many changed bits in a part.
        self._changes = [
            sum(1 << bit for bit in bits)
            for count in range(distance // self.PARTS + 1)
            for bits in combinations(range(width), count)
        ]

    def add(self, hash64: int, number: int) -> None:
        """Add a hash with its number."""
        for table, part in zip(self._tables, self._parts(hash64), strict=True):
            table[part].append(len(self._hashes))
        self._hashes.append(hash64)
        self._numbers.append(number)

    def nearest(self, hash64: int) -> tuple[int, int] | None:
        """Return the number of the nearest hash (the first of equal ones) and its distance; None if none is near."""
        best: tuple[int, int] | None = None
        for table, part in zip(self._tables, self._parts(hash64), strict=True):
            for change in self._changes:
                for place in table.get(part ^ change, ()):
                    found = ((self._hashes[place] ^ hash64).bit_count(), place)
                    if found[0] <= self.distance and (best is None or found < best):
                        best = found
        return None if best is None else (self._numbers[best[1]], best[0])

    def _parts(self, hash64: int) -> list[int]:
        width = BITS // self.PARTS
        return [hash64 >> (number * width) & self.MASK for number in range(self.PARTS)]
