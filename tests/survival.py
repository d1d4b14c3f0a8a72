"""Work that is killed in a forked process, for the tests of what a rerun makes of the rest."""

import os
import signal
import traceback
from collections.abc import Callable, Sequence

import torch


def start(work: Callable[[], object]) -> int:
    """Start ``work`` in a forked process, which ends with 0, or with 1 after printing what it raises."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # torch makes its threads anew; two threads that ask for them at once would fail
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def end(child: int) -> int:
    """Wait for a process and return its exit code, or its signal's number with a minus."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(work: Callable[[], object]) -> int:
    """Do ``work`` in a forked process; see ``start`` and ``end``."""
    return end(start(work))


def killed_at(number: int, work: Callable[[], object], also: Sequence[tuple[type, str]] = ()) -> Callable[[], object]:
    """Return ``work``, killed just before its n-th sync or rename, counted from 1.

    Args:
        number: n.
        work: the work.
        also: methods whose calls count, too: class and name.
    """

    def run() -> None:
        calls = []

        def deadly(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **options: object) -> object:
                calls.append(real)
                if len(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return call

        for owner, name in ((os, "fsync"), (os, "rename"), *also):
            setattr(owner, name, deadly(getattr(owner, name)))
        work()

    return run
