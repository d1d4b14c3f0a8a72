"""Report the progress of a long loop or a download on stderr: a bar on a terminal, else a line every ten seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def counted_bytes(name: str, show: bool = True) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that reports how many bytes are there, of how many (None if unknown).

    Args:
        name: what the bytes are of.
        show: whether to report.
    """
    if show and sys.stderr.isatty():
        with tqdm(desc=name, unit="B", unit_scale=True, file=sys.stderr) as bar:

            def report(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield report
        return
    reported = time.monotonic()

    def report_in_lines(done: int, total: int | None) -> None:
        nonlocal reported
        now = time.monotonic()
        if show and (now - reported >= SECONDS_BETWEEN_LINES or done == total):
            of_total = "" if total is None else f" of {total / 1e6:.1f}"
            print(f"{name}: {done / 1e6:.1f}{of_total} MB", file=sys.stderr, flush=True)
            reported = now

    yield report_in_lines


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
