"""Limits for downloads: bytes, time, addresses."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

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
