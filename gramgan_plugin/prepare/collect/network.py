"""What downloads may take: bytes, time, addresses."""

import threading
from dataclasses import dataclass, field


@dataclass
class Network:
    """How downloads are made.

    Attributes:
        max_bytes: of one file.
        max_total: of all files in the folder, those of earlier runs included.
        timeout: seconds without an answer, or with less than 1000 bytes a second of it.
        retries: further tries after what may pass.
        backoff: seconds before the second try, doubled before each further one.
        allow_private: ask addresses of this machine and of private networks, too.
        stop: set to end all transfers.
    """

    max_bytes: int = 200 * 10**6
    max_total: int = 100 * 10**9
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 1.0
    allow_private: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


class Budget:
    """Bytes that may still be written, by all transfers together."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        """Return whether so many are left; if so, they are taken."""
        with self._lock:
            if amount > self.left:
                return False
            self.left -= amount
            return True

    def give_back(self, amount: int) -> None:
        """What is overwritten or deleted."""
        with self._lock:
            self.left += amount


def in_megabytes(number: int) -> str:
    """Return a number of bytes for people.

    Example:
        >>> in_megabytes(2_500_000)
        '2.5 MB'
    """
    return f"{number / 1e9:.3g} GB" if number >= 10**9 else f"{number / 1e6:.3g} MB"
