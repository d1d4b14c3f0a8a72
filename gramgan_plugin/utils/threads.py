"""Run work in threads: OpenCV, Pillow and torch release Python's lock while they compute. Imports torch."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2
import torch

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.system import usable_cores

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_order(
    function: Callable[[Given], Made],
    items: Iterable[Given],
    workers: int,
    ahead: int | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Generator[tuple[Given, Made], None, None]:
    """Call a function on each item in threads, and yield the results in the order of the items.

    Args:
        function: called in a thread; its exception is raised here, at the item's place in the order.
        items: read in this thread, only as needed.
        workers: number of threads.
        ahead: at most so many items are started before their turn; None for twice the number of threads.
        stop: called at the end, also after an error or Ctrl-C, before running threads are waited for.

    Yields:
        Each item and its result.
    """
    ahead = 2 * workers if ahead is None else ahead
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[Given, Future[Made]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= ahead:
                begun, future = waiting.popleft()
                yield begun, future.result()
        while waiting:
            begun, future = waiting.popleft()
            yield begun, future.result()
    finally:
        stop()
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Make torch and OpenCV single-threaded in the block: within our own threads, more threads would be slower."""
    torch_threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(opencv_threads)


def threads_for(workers: int | None) -> int:
    """Return the given number of threads; for None, the number of cores that this process may use.

    Raises:
        UserError: if it is below 1.
    """
    if workers is None:
        return usable_cores().count
    if workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    return workers
