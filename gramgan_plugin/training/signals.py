"""Record signals that ask a run to stop, so that it can save first; a second Ctrl-C ends it at once."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Schedulers can send SIGUSR1 or SIGUSR2 before the time limit (Slurm: --signal=USR1@120).
STOPPING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")


class StopRequest:
    """The request to stop a run.

    Attributes:
        signal: name of the first signal received; None before any.
    """

    def __init__(self) -> None:
        self.signal: str | None = None


@contextmanager
def stop_signals(*, announce: bool = True) -> Iterator[StopRequest]:
    """Record SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 inside a block, instead of ending the process.

    A signal that is ignored (SIGHUP under ``nohup``) stays ignored. After the first signal, SIGINT ends the process at
    once, even during a long operation outside Python. Outside the main thread, where Python has no signals, nothing is
    recorded.

    Args:
        announce: print on stderr what the first signal will do.

    Yields:
        The request, to be checked where the run can stop.

    Example:
        >>> with stop_signals(announce=False) as request:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     request.signal
        'SIGTERM'
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = _Handlers(request, announce)
    try:
        yield request
    finally:
        handlers.close()


class _Handlers:
    """Handlers for the main thread, and a thread that receives signals while the main one is in C++ code.

    Python runs a handler between two bytecodes of the main thread. A backward pass, or a collective operation whose
    peer has died, can delay that for long. The system's own handler also writes the signal's number to a socket, which
    the thread reads. Only the thread prints: a handler that takes a lock may have interrupted its holder.
    """

    def __init__(self, request: StopRequest, announce: bool) -> None:
        self.request, self.announce = request, announce
        self.process = os.getpid()
        known = [signal.Signals[name] for name in STOPPING if hasattr(signal, name)]
        # None is a handler that was not set from Python and cannot be restored.
        self.before = {
            number: handler
            for number in known
            if (handler := signal.getsignal(number)) is not None and handler is not signal.SIG_IGN
        }
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.fd_before = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        _sockets.add(self.writer.fileno())
        self.listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self.listener.start()
        for number in self.before:
            signal.signal(number, self._handle)

    def close(self) -> None:
        """Restore the previous handlers, and end the thread."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.fd_before)
        _sockets.discard(self.writer.fileno())
        # Closing would not end the thread: a data worker may still hold its copy of the socket.
        self.writer.send(b"\0")
        self.listener.join()
        self.reader.close()
        self.writer.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a worker that has not yet set its own
            return
        self.request.signal = self.request.signal or signal.Signals(number).name
        if signal.SIGINT in self.before:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _listen(self) -> None:
        announced = False
        while number := self.reader.recv(1)[0]:
            if number not in self.before:
                continue
            if announced and number == signal.SIGINT:
                # It came before the main thread could restore SIGINT. Files are renamed into place once they are
                # whole, so only unsaved work is lost.
                os._exit(128 + number)
            if not announced:
                announced = True
                self._announce(signal.Signals(number).name)

    def _announce(self, name: str) -> None:
        if not self.announce:
            return
        line = f"{name}: the run will save and stop after the current iteration; "
        line += "a second Ctrl-C ends it at once" if name == "SIGINT" else "Ctrl-C ends it at once"
        start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""  # below the progress bar
        with suppress(OSError):  # the terminal may be closed
            os.write(2, f"{start}basicsr: {line}\n".encode())


# The sockets that signals are written to: a forked worker must not write its own signals to them.
_sockets: set[int] = set()


def _detach_sockets() -> None:
    if _sockets:
        _sockets.clear()
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_sockets)
