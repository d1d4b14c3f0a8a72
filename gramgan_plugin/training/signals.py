"""Signals that ask a run to stop: remembered, so that it can save first; a second Ctrl-C ends it at once."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# SIGUSR1 and SIGUSR2 are what schedulers are told to send before the time is up (Slurm: --signal=USR1@120).
STOPPING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")


class StopRequest:
    """What has been asked of a run.

    Attributes:
        signal: name of the first signal that came, None as long as none has.
    """

    def __init__(self) -> None:
        self.signal: str | None = None


@contextmanager
def stop_signals(*, tell: bool = True) -> Iterator[StopRequest]:
    """Remember SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 for the length of a block, instead of dying of them.

    A signal that is ignored (SIGHUP under ``nohup``) stays so. From the first signal on, SIGINT ends the process at
    once, even in the midst of a long operation outside Python. Outside the main thread, where Python has no signals,
    nothing is caught.

    Args:
        tell: say on stderr what the first signal will do.

    Yields:
        The request, to be looked at where the run can stop.

    Example:
        >>> with stop_signals(tell=False) as request:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     request.signal
        'SIGTERM'
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    catcher = _Catcher(request, tell)
    try:
        yield request
    finally:
        catcher.close()


class _Catcher:
    """Handlers for the main thread, and a thread that hears of signals while the main one is in C++ code.

    Python runs a handler between two bytecodes of the main thread; a backward pass or a collective operation whose
    peer has gone can keep it from that for long. The system's own handler also writes the signal's number to a
    socket, which the thread reads. Only the thread prints: a handler must not take a lock that it may have
    interrupted the holder of.
    """

    def __init__(self, request: StopRequest, tell: bool) -> None:
        self.request, self.tell = request, tell
        self.process = os.getpid()
        known = [signal.Signals[name] for name in STOPPING if hasattr(signal, name)]
        # None is a handler that was not set from Python and could not be put back.
        self.before = {
            number: handler
            for number in known
            if (handler := signal.getsignal(number)) is not None and handler is not signal.SIG_IGN
        }
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.fd_before = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        _forks.add(self.writer.fileno())
        self.listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self.listener.start()
        for number in self.before:
            signal.signal(number, self._handle)

    def close(self) -> None:
        """Put everything back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.fd_before)
        _forks.discard(self.writer.fileno())
        # Not by closing: a data worker may still hold its copy of the socket.
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
        told = False
        while number := self.reader.recv(1)[0]:
            if number not in self.before:
                continue
            if told and number == signal.SIGINT:
                # It came before the main thread could put SIGINT back. Files are renamed into place once they are
                # whole, so nothing is lost but what has not been saved.
                os._exit(128 + number)
            if not told:
                told = True
                self._say(signal.Signals(number).name)

    def _say(self, name: str) -> None:
        if not self.tell:
            return
        line = f"{name}: the run will save and stop after the current iteration; "
        line += "a second Ctrl-C ends it at once" if name == "SIGINT" else "Ctrl-C ends it at once"
        start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""  # below the progress bar
        with suppress(OSError):  # the terminal may be what has gone
            os.write(2, f"{start}basicsr: {line}\n".encode())


# The sockets that signals are written to: a forked worker must not tell the run of its own signals through them.
_forks: set[int] = set()


def _leave_the_socket() -> None:
    if _forks:
        _forks.clear()
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_the_socket)
