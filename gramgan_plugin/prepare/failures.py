"""Explain in one line what stopped the making of a data set, if the user can fix it."""

import errno
import os
import sys
from pathlib import Path

import lmdb

from gramgan_plugin.errors import Preempted, UserError, os_problem

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class TerminatedError(BaseException):
    """SIGTERM was received."""


# Causes outside of the work, after which it can be resumed.
FROM_OUTSIDE = (KeyboardInterrupt, SystemExit, TerminatedError, MemoryError, OSError, lmdb.Error)


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
    if isinstance(error, OSError | lmdb.Error):
        problem = explained(error, out)
        if isinstance(problem, UserError) and kept:
            raise UserError(f"{problem}; then run the same command again: {kept}") from error
        if problem is not error:
            raise problem from error
    if kept:
        print(f"{out}: interrupted; run the same command again: {kept}", file=sys.stderr)


def explained(error: OSError | lmdb.Error, out: Path) -> Exception:
    """Return a ``UserError`` about ``out`` for errors of disks, permissions or limits; otherwise the error itself."""
    number = error.errno if isinstance(error, OSError) else _number(error)
    if number in NO_SPACE:
        limit = " or within `ulimit -f`" if _has_size_limit() else ""
        return UserError(f"{out}: no space left on the disk{limit}; free some, or choose an --out elsewhere")
    if isinstance(error, OSError):
        problem = os_problem(error, error.filename or out)
    else:
        problem = None if number is None else os_problem(OSError(number, ""), out)
    return error if problem is None else UserError(problem)


def _number(error: lmdb.Error) -> int | None:
    """Return the errno of an LMDB error; LMDB reports a write shortened by a full disk as EIO."""
    if isinstance(error, lmdb.DiskError) or str(error).endswith(os.strerror(errno.EIO)):
        return errno.ENOSPC
    numbers = (errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOSPC)
    return next((number for number in numbers if str(error).endswith(os.strerror(number))), None)


def _has_size_limit() -> bool:
    if os.name == "nt":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
