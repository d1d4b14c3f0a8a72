"""A database that appears at its name whole or not at all; one that stands there stays until then."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gramgan_plugin.data.prepare.failures import explained, raise_explained
from gramgan_plugin.data.prepare.pack import sigterm_raises
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.files import sync
from gramgan_plugin.patchdb.manifest import ARRAYS, MANIFEST, SOURCES

LOCK = ".lock"
SCRATCH = ".scratch"
INDEX = "index"
OWN = frozenset((*ARRAYS, MANIFEST, SOURCES, INDEX, LOCK))


@contextmanager
def placed(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to fill: ``OUT.tmp-PID``, which becomes ``out`` when the block ends well.

    All of it is synced before; a database being replaced is moved aside just before and deleted after. If the block
    fails, by Ctrl-C and SIGTERM, too, the folder is deleted and ``out`` is as it was. What a killed process has left is
    deleted by the next one; a database that it had moved aside is put back.

    Args:
        out: the final name.
        overwrite: replace a database that stands there.

    Raises:
        UserError: if ``out`` exists and may not be replaced, is being made by another process, or cannot be written.
        Preempted: after SIGTERM.
    """
    out = out.expanduser().resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        put_back(out)
        check_free(out, overwrite)
        _clean(out)
        folder = out.with_name(f"{out.name}.tmp-{os.getpid()}")
        folder.mkdir()
    except OSError as error:
        raise explained(error, out) from error
    lock = FileLock(folder / LOCK)
    try:
        with sigterm_raises():
            lock.acquire(timeout=0)
            yield folder
            _rename(folder, out, overwrite, lock)
    except BaseException as error:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
        raise_explained(error, out, "")
        raise


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse an output name that is taken.

    Raises:
        UserError: see :func:`placed`.
    """
    out = out.expanduser()
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UserError(f"{out}: exists already; choose another --out, or pass --overwrite to replace it")
    # By its manifest alone, a data set's LMDB could be taken for one.
    foreign = sorted(path.name for path in out.iterdir() if path.name not in OWN) if out.is_dir() else [out.name]
    if foreign:
        raise UserError(f"{out}: holds {foreign[0]}, which is no part of a patch database, so it is not replaced")


def put_back(out: Path) -> None:
    """Give a database its name again that a process moved aside and was killed before it put another in its place."""
    out = out.expanduser().resolve()
    if os.path.lexists(out):
        return
    with file_errors(out):
        for path in _beside(out, "old"):
            if (path / MANIFEST).is_file():
                path.rename(out)
                print(f"{out}: put back from {path.name}, where a process that was killed had left it", file=sys.stderr)
                return


def _clean(out: Path) -> None:
    """Delete what dead processes left; refuse to work beside a living one."""
    for path in _beside(out, "tmp"):
        lock = FileLock(path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{out}: is being made by another process ({path.name}); wait for it, or end it") from None
        lock.release()
        shutil.rmtree(path, ignore_errors=True)


def _beside(out: Path, kind: str) -> list[Path]:
    """The folders beside ``out`` with its name and ``.kind-PID``."""
    name = re.compile(re.escape(f"{out.name}.{kind}-") + r"\d+")
    if not out.parent.is_dir():
        return []
    return sorted(path for path in out.parent.iterdir() if name.fullmatch(path.name) and path.is_dir())


def _rename(folder: Path, out: Path, overwrite: bool, lock: FileLock) -> None:
    (folder / SCRATCH).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name != LOCK:
            sync(path)
    check_free(out, overwrite)
    old = out.with_name(f"{out.name}.old-{os.getpid()}")
    replaces = out.exists()
    if os.name == "nt":  # no folder with an open file can be renamed
        lock.release()
    sync(folder)
    if replaces:
        out.rename(old)
    try:
        folder.rename(out)
    except BaseException:
        if replaces:
            old.rename(out)
        raise
    (out / LOCK).unlink(missing_ok=True)
    lock.release()
    sync(out.parent)
    for path in _beside(out, "old"):
        shutil.rmtree(path, ignore_errors=True)
