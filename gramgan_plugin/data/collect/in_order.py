"""Work in threads whose results come in the order of the input, a few at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(
    function: Callable[[Given], Made], items: Iterable[Given], workers: int, ahead: int = 2
) -> Generator[tuple[Given, Made], None, None]:
    """Call a function on each item in threads.

    Args:
        function: called in a thread; what it raises is raised here, when its turn comes.
        items: taken in this thread, no more than needed.
        workers: threads.
        ahead: items a thread, at most, that are begun or done before their turn.

    Yields:
        Each item and its result.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[Given, Future[Made]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= workers * ahead:
                begun, future = waiting.popleft()
                yield begun, future.result()
        while waiting:
            begun, future = waiting.popleft()
            yield begun, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
