"""Divide an image into tiles that overlap, so that a network's results agree inside of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A tile along one side of an image, in pixels of LQ.

    Attributes:
        begin, end: what the network gets, overlap included.
        first, last: what is kept of it.
    """

    begin: int
    end: int
    first: int
    last: int


def spans(side: int, tile: int, overlap: int, multiple: int = 1) -> list[Span]:
    """Divide one side of an image into as few, equally long tiles as possible.

    Args:
        side: of the image, at least 1.
        tile: the most that the network gets at once, overlap included; 0 for all.
        overlap: kept away from both ends of a tile that are not ends of the image.
        multiple: tiles begin at multiples of it.

    Returns:
        Tiles whose kept parts cover the side once, in order. Where ``tile`` leaves nothing between two overlaps, tiles
        are longer.

    Example:
        >>> spans(100, 60, 10)
        [Span(begin=0, end=60, first=0, last=50), Span(begin=40, end=100, first=50, last=100)]
    """
    if tile <= 0 or side <= tile:
        return [Span(0, side, 0, side)]
    overlap = math.ceil(overlap / multiple) * multiple
    most = max(multiple, (tile - 2 * overlap) // multiple * multiple)
    # The first and the last tile overlap at one end only.
    count = max(2, math.ceil((side - 2 * overlap) / most))
    step = math.ceil((side - 2 * overlap) / count / multiple) * multiple
    found: list[Span] = []
    first = 0
    while first < side:
        last = min(side, step * (len(found) + 1) + overlap)
        last = side if side - last <= overlap else last
        found.append(Span(max(0, first - overlap), min(side, last + overlap), first, last))
        first = last
    return found


def tiles(height: int, width: int, tile: int, overlap: int, multiple: int = 1) -> Iterator[tuple[Span, Span]]:
    """Yield the tiles of an image as (rows, columns), from top to bottom; see `spans`."""
    columns = spans(width, tile, overlap, multiple)
    for rows in spans(height, tile, overlap, multiple):
        for column in columns:
            yield rows, column
