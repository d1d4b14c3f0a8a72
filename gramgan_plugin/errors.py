"""The errors that a user's input or machine can cause.

A ``UserError`` ends a command with one line on stderr and the exit code of the class. So does an ``OSError`` that
``os_problem`` describes. Any other exception is a bug of ours and keeps its traceback.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Bad input: the message names the file or key, what is wrong and what to do.

    ``str(error)`` is one line. The ``basicsr`` command prints it and exits with ``exit_code``.
    """

    exit_code = 2


class OptionError(UserError):
    """An option file, key or value that cannot be used; the message starts with the key's full path."""


class TrainingStopped(UserError):  # noqa: N818  (not an error)
    """Training stopped itself and saved its state: non-finite losses, or too many unreadable images."""

    exit_code = 4


class Preempted(UserError):  # noqa: N818
    """A signal stopped the run and its state is saved: run the same command again (``EX_TEMPFAIL``)."""

    exit_code = 75


_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|Insufficient memory")
# errno -> what is wrong and what to do. Numbers that only a bug of the program can cause (EBADF, EINVAL, ...) are
# left out on purpose.
_OS_PROBLEMS = {
    errno.ENOSPC: "no space left on the disk; free some",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "larger than the file system or `ulimit -f` allows",
    errno.EIO: "input/output error of the disk; see the system's log",
    errno.ESTALE: "the network file system has lost it; run again",
    errno.ENOLCK: "the file system has no locks left; work in a folder on another one",
    errno.EROFS: "the file system is read-only; work in a folder that can be written",
    errno.EACCES: "permission denied; change its permissions, or work in another folder",
    errno.EPERM: "not permitted; change its owner, or work in another folder",
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "part of this path is a file, not a folder; move it out of the way",
    errno.EISDIR: "a folder where a file should be; move it out of the way",
    errno.EEXIST: "exists already; move it out of the way",
    errno.ENOTEMPTY: "a folder that is not empty; move it out of the way",
    errno.EBUSY: "in use by the system",
    errno.ELOOP: "a symbolic link that leads in a circle",
    errno.ENAMETOOLONG: "a name that is too long for the file system",
    errno.EMFILE: "too many open files; raise `ulimit -n`, or lower num_worker_per_gpu",
    errno.ENFILE: "too many open files on this machine; lower num_worker_per_gpu",
}
# Writes to an open file raise these without a file name; others without a name are not about a file.
_NAMELESS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS, errno.EMFILE, errno.ENFILE}


def os_problem(error: OSError, path: str | Path | None = None) -> str | None:
    """Return one line about an error that the user's disks, permissions or limits have caused; None for any other.

    Args:
        error: the system's error.
        path: the file; the one that the error names if None.
    """
    what = _OS_PROBLEMS.get(error.errno or 0)
    name = path if path is not None else error.filename
    if what is None or (name is None and error.errno not in _NAMELESS):
        return None
    return what if name is None else f"{name}: {what}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error means that the machine's or a GPU's memory is used up."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in kinds:
        return True
    # torch's CPU allocator raises RuntimeErrors; OpenCV raises its own class `error`.
    foreign = isinstance(error, RuntimeError) or type(error).__module__ == "cv2"
    return foreign and _NO_MEMORY.search(str(error)) is not None


@contextmanager
def file_errors(path: str | Path) -> Iterator[None]:
    """Turn ``OSError`` of the block, which reads or writes ``path``, into ``UserError`` if the user can fix it.

    Example:
        >>> with file_errors("metrics.jsonl"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        gramgan_plugin.errors.UserError: metrics.jsonl: no space left on the disk; free some
    """
    try:
        yield
    except OSError as error:
        problem = os_problem(error, path)
        if problem is None:
            raise
        raise UserError(problem) from error
