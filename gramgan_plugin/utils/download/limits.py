"""Limits for downloads: bytes, time, addresses."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

LEAST_RATE = 1000.0  # bytes/s
POLL = 0.1  # seconds

Report = Callable[[int, int | None], None]  # bytes that are there, and of the whole file if known


@dataclass
class Network:
    """Settings of downloads.

    Attributes:
        max_bytes: maximum size of one file.
        limit: what messages call that maximum.
        max_total: maximum of all files in the folder, including earlier runs.
        timeout: seconds without a response, or with less than 1000 bytes a second.
        retries: number of further tries after a temporary failure.
        backoff: seconds before the second try, doubled before each further one.
        allow_private: also connect to this machine and private networks.
        https_only: refuse addresses without encryption, also in redirects.
        stop: event that ends all transfers.
    """

    max_bytes: int = 200 * 10**6
    limit: str = "--max-bytes"
    max_total: int = 100 * 10**9
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 1.0
    allow_private: bool = False
    https_only: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


class Budget:
    """The bytes that all transfers together may still write."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        """Take ``amount`` bytes if so many are left, and return whether they were."""
        with self._lock:
            if amount > self.left:
                return False
            self.left -= amount
            return True

    def give_back(self, amount: int) -> None:
        """Return bytes that were overwritten or deleted."""
        with self._lock:
            self.left += amount


def in_megabytes(number: int) -> str:
    """Return a number of bytes as readable text.

    Example:
        >>> in_megabytes(2_500_000)
        '2.5 MB'
    """
    return f"{number / 1e9:.3g} GB" if number >= 10**9 else f"{number / 1e6:.3g} MB"


class Deadline:
    """Closes a connection that is too slow, or when all transfers must stop.

    Unlike a socket's timeout, its limit does not restart with each byte.

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
