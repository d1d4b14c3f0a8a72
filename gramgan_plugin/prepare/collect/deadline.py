"""How long one download may take: the timeout of a socket begins anew with each byte, this one does not."""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

LEAST_RATE = 1000.0  # bytes/s
POLL = 0.1  # seconds


class Deadline:
    """Ends a connection from outside that is too slow, or when all transfers are to stop.

    What is asked for has to begin within ``seconds``, headers included, and has to bring ``LEAST_RATE`` bytes a second
    from then on, measured over so many seconds: a file of n bytes takes ``seconds + n / LEAST_RATE`` at most, and a
    server that sends a byte now and then is left, wherever in its answer it does so. Reading returns at once then,
    with an error or as if the answer were at its end: call :meth:`check` after it.

    A thread watches while it is used as a context manager.

    Args:
        seconds: without an answer, or with too little data.
        stop: set to end at once.
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
        """A connection was made, and the answer is waited for."""
        before, self._socket = self._socket, opened.dup()  # encryption takes the socket's number away from it
        self._at = time.monotonic() + self.seconds
        if before is not None:
            before.close()

    def received(self, count: int) -> None:
        """So many bytes of the content have come."""
        self._at = min(time.monotonic() + self.seconds, self._at + count / LEAST_RATE)

    def _watch(self) -> None:
        while not self._done.wait(POLL):
            self.passed = self.passed or time.monotonic() > self._at
            if self._socket is not None and (self.passed or self.stop.is_set()):
                with suppress(OSError):  # it is closed already
                    self._socket.shutdown(socket.SHUT_RDWR)
