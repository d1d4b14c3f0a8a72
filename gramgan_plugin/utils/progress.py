"""Report the progress of a long loop on stderr: a bar on a terminal, otherwise a line every ten seconds."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def tracked(items: Sequence[T], unit: str, show: bool = True) -> Iterator[T]:
    """Iterate over a sequence as `tracked_of` does."""
    return tracked_of(items, len(items), unit, show)


def tracked_of(items: Iterable[T], total: int, unit: str, show: bool = True) -> Iterator[T]:
    """Iterate over items and report how many are done, the speed and the time left.

    Args:
        items: what to iterate over.
        total: number of items.
        unit: the name of one item, singular.
        show: whether to report.
    """
    if not show:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=f" {unit}", file=sys.stderr)
    else:
        yield from _in_lines(items, total, unit)


def _in_lines(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    begun = reported = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - reported >= SECONDS_BETWEEN_LINES or done == total:
            rate = done / max(now - begun, 1e-9)
            left = (total - done) / rate
            line = f"{done}/{total} {unit}s, {rate:.2f}/s, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)
            reported = now
