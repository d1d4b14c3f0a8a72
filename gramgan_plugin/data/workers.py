"""How processes that load data live and end: by what the training process does, not by signals to the whole group."""

import atexit
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

# A Ctrl-C in the terminal and Slurm's signals reach every process of a run. The training process answers them, and
# while it saves it may still want its batches. Windows has the first two only.
LEFT_TO_THE_PARENT = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
SECONDS_BETWEEN_LOOKS = 2.0


class Lifeline:
    """What ends the workers of a ``DataLoader`` of this process, whatever way it starts them.

    A worker that has run :meth:`worker_init` ignores the signals above. It ends, even in the middle of a sample, once
    the lifeline is cut, is gone, or this process exits or is killed; SIGTERM, by which torch and ``multiprocessing``
    end children that do not answer, is not needed.
    """

    def __init__(self) -> None:
        reader, writer = multiprocessing.Pipe(duplex=False)
        self._reader = reader
        self._cut = weakref.finalize(self, _tell, reader, writer, os.getpid())
        # Its own call at exit may come after that of `multiprocessing`, which waits for its children.
        atexit.register(self._cut)

    def worker_init(self) -> Callable[[int], None]:
        """Return the ``worker_init_fn``."""
        return partial(_start, self._reader)

    def cut(self) -> None:
        """End the workers that are left."""
        self._cut()
        atexit.unregister(self._cut)


def _tell(reader: Connection, writer: Connection, owner: int) -> None:
    if os.getpid() == owner:  # not in a worker, which has copies of all this
        writer.send_bytes(b"end")  # never read: it stays readable for every worker
        writer.close()
        reader.close()


def _start(reader: Connection, worker: int) -> None:
    for name in LEFT_TO_THE_PARENT:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(reader, os.getppid()), daemon=True).start()


def _end_with_parent(reader: Connection, parent: int) -> None:
    # Forked workers hold a copy of the other end: when the parent is killed, only the check of its number shows it.
    while not reader.poll(SECONDS_BETWEEN_LOOKS) and os.getppid() == parent:
        pass
    os._exit(0)
