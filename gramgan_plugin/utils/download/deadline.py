"""Limit the total time of a download: unlike a socket's timeout, this limit does not restart with each byte."""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

LEAST_RATE = 1000.0  # bytes/s
POLL = 0.1  # seconds


class Deadline:
    """Closes a connection that is too slow, or when all transfers must stop.

    The content has to start within ``seconds``, headers included, and then arrive at ``LEAST_RATE`` bytes a second or
    more, measured over ``seconds``. So a file of n bytes takes at most ``seconds + n / LEAST_RATE``, and a server that
    sends a byte now and then is cut off. Reading then returns at once, with an error or as if the response were
    complete: call :meth:`check` after it.

    While the object is used as a context manager, a thread watches the connection.

    Args:
        seconds: the longest time without a response, or with too little data.
        stop: event that ends the transfer at once.
    """

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self.seconds, self.stop = seconds, stop
        self.passed = False
        self._at = time.monotonic() + seconds
        self._socket: socket.socket | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._socket is not None:
            self._socket.close()

    def connected(self, opened: socket.socket) -> None:
        """Note a new connection; the wait for the response starts."""
        before, self._socket = self._socket, opened.dup()  # encryption detaches the original socket
        self._at = time.monotonic() + self.seconds
        if before is not None:
            before.close()

    def received(self, count: int) -> None:
        """Note ``count`` further bytes of the content."""
        self._at = min(time.monotonic() + self.seconds, self._at + count / LEAST_RATE)

    def _watch(self) -> None:
        while not self._done.wait(POLL):
            self.passed = self.passed or time.monotonic() > self._at
            if self._socket is not None and (self.passed or self.stop.is_set()):
                with suppress(OSError):  # it is already closed
                    self._socket.shutdown(socket.SHUT_RDWR)
