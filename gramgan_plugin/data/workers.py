"""End data-loading processes when the training process ends, not by signals to the process group."""

import atexit
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

# Ctrl-C and Slurm's signals reach every process of a run. The training process handles them, and it may still need
# batches while it saves. Windows has only the first two signals.
IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
SECONDS_BETWEEN_CHECKS = 2.0


class WorkerStop:
    """Ends the workers of a ``DataLoader`` of this process, for every start method.

    A worker that has run :meth:`worker_init` ignores the signals above. It ends, even within a sample, when
    :meth:`end_workers` is called, this object is deleted, or this process exits or is killed. No SIGTERM is needed.
    """

    def __init__(self) -> None:
        reader, writer = multiprocessing.Pipe(duplex=False)
        self._reader = reader
        self._end = weakref.finalize(self, _send_end, reader, writer, os.getpid())
        # The finalizer's own call at exit may come after `multiprocessing` waits for its children.
        atexit.register(self._end)

    def worker_init(self) -> Callable[[int], None]:
        """Return the ``worker_init_fn``."""
        return partial(_start, self._reader)

    def end_workers(self) -> None:
        """End the remaining workers."""
        self._end()
        atexit.unregister(self._end)


def _send_end(reader: Connection, writer: Connection, owner: int) -> None:
    if os.getpid() == owner:  # not in a worker, which has copies of these objects
        writer.send_bytes(b"end")  # nobody reads it, so that every worker can poll it
        writer.close()
        reader.close()


def _start(reader: Connection, worker: int) -> None:
    for name in IGNORED_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(reader, os.getppid()), daemon=True).start()


def _end_with_parent(reader: Connection, parent: int) -> None:
    # Forked workers hold a copy of the writer: if the parent is killed, only its changed process id shows it.
    while not reader.poll(SECONDS_BETWEEN_CHECKS) and os.getppid() == parent:
        pass
    os._exit(0)
