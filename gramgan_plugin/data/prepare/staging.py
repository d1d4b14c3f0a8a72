"""A folder that appears whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb

from gramgan_plugin.errors import UserError, os_problem

MARKER = "names.jsonl"  # stands in every prepared folder; without it, none is ever replaced
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def staged_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Build a folder beside its place, then rename it there.

    The block fills ``OUT.tmp-PID``. When it ends well, all of it is synced to the disk and renamed to
    ``out``; a folder being replaced is moved aside just before and deleted after. When it fails or is
    interrupted, the temporary folder is deleted, and ``out`` is as it was.

    Args:
        out: the final name.
        overwrite: replace a prepared folder (one with ``names.jsonl``) that stands there.

    Yields:
        The folder to fill.

    Raises:
        UserError: if ``out`` exists and may not be replaced, cannot be written, or the disk is full.
    """
    out = out.expanduser().resolve()
    check_free(out, overwrite)
    staging = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)  # of a dead process that had our id
        staging.mkdir()
        yield staging
        _sync_tree(staging)
        _put_in_place(staging, out, overwrite)
    except (OSError, lmdb.Error) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise _explained(error, out) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse an output name that is taken.

    Raises:
        UserError: see :func:`staged_folder`.
    """
    out = out.expanduser()
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UserError(f"{out}: exists already; choose another --out, or pass --overwrite to replace it")
    if not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).is_file()):
        raise UserError(f"{out}: was not written by 'prepare' (no {MARKER} in it), so it is not replaced")


def _put_in_place(staging: Path, out: Path, overwrite: bool) -> None:
    check_free(out, overwrite)
    old = out.with_name(f"{out.name}.old-{os.getpid()}")
    replaces = out.exists()
    if replaces:
        out.rename(old)
    try:
        staging.rename(out)
    except BaseException:
        if replaces:
            old.rename(out)
        raise
    _sync(out.parent)
    if replaces:
        shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    """fsync all files of a folder, then the folders."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with suppress(OSError) if path.is_dir() else _nothing():  # some network file systems sync no folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _explained(error: OSError | lmdb.Error, out: Path) -> Exception:
    """The error as one line for the user, where it is theirs to mend."""
    if isinstance(error, OSError):
        full = error.errno in NO_SPACE
        problem = os_problem(error, error.filename or out)
    else:  # LMDB reports a write that a full disk cut short as a plain input/output error
        full = isinstance(error, lmdb.DiskError) or str(error).endswith(os.strerror(errno.EIO))
        problem = None
    if full:
        return UserError(f"{out}: no space left on the disk; free some, or choose an --out elsewhere")
    return error if problem is None else UserError(problem)
