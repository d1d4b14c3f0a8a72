"""Explain in one line what stopped the making of a folder, if the user can fix it; raise on SIGTERM."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeGuard

from gramgan_plugin.errors import Preempted, UserError, os_problem

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class TerminatedError(BaseException):
    """SIGTERM was received."""


def is_from_outside(error: BaseException) -> bool:
    """Return whether the cause is outside of the work, which can be resumed then."""
    return isinstance(error, KeyboardInterrupt | SystemExit | TerminatedError | MemoryError) or _is_of_the_disk(error)


def _is_of_the_disk(error: BaseException) -> TypeGuard[Exception]:
    lmdb = sys.modules.get("lmdb")  # where it was not imported, it raised nothing
    return isinstance(error, OSError) or (lmdb is not None and isinstance(error, lmdb.Error))


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise :class:`TerminatedError` on SIGTERM in the block, if this is the main thread and no handler is set."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def raise_explained(error: BaseException, out: Path, kept: str) -> None:
    """Raise the error with an explanation, if there is one, and with what is kept.

    Args:
        error: the error that ended the work on ``out``.
        out: the output.
        kept: what a rerun will resume, or "".
    """
    if isinstance(error, TerminatedError):
        raise Preempted(
            f"{out}: ended by SIGTERM; run the same command again" + (f": {kept}" if kept else "")
        ) from error
    if _is_of_the_disk(error):
        problem = explained(error, out)
        if isinstance(problem, UserError) and kept:
            raise UserError(f"{problem}; then run the same command again: {kept}") from error
        if problem is not error:
            raise problem from error
    if kept:
        print(f"{out}: interrupted; run the same command again: {kept}", file=sys.stderr)


def explained(error: Exception, out: Path) -> Exception:
    """Return a ``UserError`` about ``out`` for an error of the system or of LMDB that a user can mend, else itself."""
    number = error.errno if isinstance(error, OSError) else _number(error)
    if number in NO_SPACE:
        limit = " or within `ulimit -f`" if _has_size_limit() else ""
        return UserError(f"{out}: no space left on the disk{limit}; free some, or choose an --out elsewhere")
    if isinstance(error, OSError):
        problem = os_problem(error, error.filename or out)
    else:
        problem = None if number is None else os_problem(OSError(number, ""), out)
    return error if problem is None else UserError(problem)


def _number(error: Exception) -> int | None:
    """Return the errno of an LMDB error; LMDB reports a write shortened by a full disk as EIO."""
    if type(error).__name__ == "DiskError" or str(error).endswith(os.strerror(errno.EIO)):
        return errno.ENOSPC
    numbers = (errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOSPC)
    return next((number for number in numbers if str(error).endswith(os.strerror(number))), None)


def _has_size_limit() -> bool:
    if os.name == "nt":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
