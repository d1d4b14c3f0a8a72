"""Progress of a long loop, on stderr: a bar on a terminal, elsewhere a plain line every ten seconds."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def tracked(items: Sequence[T], unit: str, show: bool = True) -> Iterator[T]:
    """Iterate as `tracked_of` does, for items whose number is known."""
    return tracked_of(items, len(items), unit, show)


def tracked_of(items: Iterable[T], total: int, unit: str, show: bool = True) -> Iterator[T]:
    """Iterate while reporting how many are done, how fast, and how long the rest will take.

    Args:
        items: what to go through.
        total: how many there are.
        unit: what one is called.
        show: report at all.
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
