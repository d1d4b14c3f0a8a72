"""A folder that appears whole or not at all, and that a later process can resume if this one is killed."""

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.prepare.failures import FROM_OUTSIDE, explained, raise_explained
from gramgan_plugin.prepare.journal import JOURNAL
from gramgan_plugin.utils.io import expanded, lock_holder, parse_json, real_path, sync

MARKER = "names.jsonl"  # stands in every prepared folder; without it, none is ever replaced
LOCK = ".lock"
MAKER = ".maker.json"


@dataclass(frozen=True)
class Kind:
    """What is made, and how it is distinguished from what must not be touched.

    Attributes:
        sign: a file that each of them has.
        foreign: what is wrong with replacing something, "holds X"; None where it may be.
    """

    sign: str
    foreign: Callable[[Path], str | None]


def _no_data_set(path: Path) -> str | None:
    if path.is_dir() and ((path / MARKER).is_file() or not any(path.iterdir())):
        return None
    return f"was not written by 'prepare' (no {MARKER} in it)"


DATA_SET = Kind(MARKER, _no_data_set)


class Staging:
    """A folder being filled.

    Attributes:
        path: the folder.
        resumed: it holds the work of a process that was killed.
        worth: returns how much is done, in words, once there is something to resume from; "" before.
    """

    def __init__(self, path: Path, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self.worth: Callable[[], str] = str


@contextmanager
def staged_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Build a folder beside its place, then rename it there: :func:`staging` for work that cannot be resumed."""
    with staging(out, overwrite) as stage:
        yield stage.path


@contextmanager
def staging(out: Path, overwrite: bool = False, job: str = "", kind: Kind = DATA_SET) -> Iterator[Staging]:
    """Build a folder beside its place, then rename it there.

    The block fills ``OUT.tmp-PID``, which is locked for as long as this process lives. When it ends well, all of it
    is synced to the disk and renamed to ``out``; a folder being replaced is moved aside just before and deleted
    after; if a process was killed in between, the next one puts it back first. When it fails, the temporary folder is
    deleted, and ``out`` is as it was; unless the failure came from outside (Ctrl-C, SIGTERM, a full disk) and
    ``worth`` says that there is something to resume from: the folder then stays for the next process with the same
    ``job``, as it does when this process is killed.

    Args:
        out: the final name.
        overwrite: replace one of its kind that stands there.
        job: what is to be built, in a few characters; "" never resumes anything.
        kind: what is made.

    Raises:
        UserError: if ``out`` exists and may not be replaced, cannot be written, is being made by another process, or
            the disk is full.
        Preempted: after SIGTERM, if the block lets a ``failures.TerminatedError`` out.
    """
    out = real_path(out)
    if overwrite:
        put_back(out, kind)
    check_free(out, overwrite, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage, lock = _claim(out, job)
    except OSError as error:
        raise explained(error, out) from error
    try:
        yield stage
        _sync_tree(stage.path)
        _put_in_place(stage.path, out, overwrite, lock, kind)
    except BaseException as error:
        kept = stage.worth() if isinstance(error, FROM_OUTSIDE) else ""
        lock.release()
        if not kept:
            _delete(stage.path, LOCK)
        raise_explained(error, out, kept and f"{kept}, kept in {stage.path.name}")
        raise


def check_free(out: Path, overwrite: bool, kind: Kind = DATA_SET) -> None:
    """Refuse an output name that is taken.

    Raises:
        UserError: see :func:`staging`.
    """
    out = expanded(out)
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UserError(f"{out}: exists already; choose another --out, or pass --overwrite to replace it")
    foreign = kind.foreign(out)
    if foreign is not None:
        raise UserError(f"{out}: {foreign}, so it is not replaced")


def put_back(out: Path, kind: Kind) -> None:
    """Give a folder its name again that a process moved aside and was killed before it put another in its place.

    Raises:
        UserError: if it cannot be renamed.
    """
    out = real_path(out)
    if os.path.lexists(out) or not out.parent.is_dir():
        return
    with file_errors(out):
        for path in _beside(out, "old", kind.sign):
            if (path / kind.sign).is_file():
                path.rename(out)
                print(f"{out}: put back from {path.name}, where a process that was killed had left it", file=sys.stderr)
                return


def _claim(out: Path, job: str) -> tuple[Staging, FileLock]:
    """Return the staging folder, locked: that of a dead process with the same job, or a new one."""
    found = _look_around(out, job)
    if found is None:
        path = out.with_name(f"{out.name}.tmp-{os.getpid()}")
        path.mkdir()
        lock = FileLock(path / LOCK)
        try:
            lock.acquire(timeout=0)
            _look_around(out, "", but=path)  # another process may have done the same meanwhile
        except BaseException as error:
            lock.release()
            _delete(path, LOCK)
            if isinstance(error, Timeout):
                raise UserError(f"{out}: is being made by another process that has just begun; wait for it") from None
            raise
        stage = Staging(path, resumed=False)
    else:
        stage, lock = found
    maker = {"job": job, "host": socket.gethostname(), "pid": os.getpid()}
    (stage.path / MAKER).write_text(json.dumps(maker), encoding="ascii")
    return stage, lock


def _look_around(out: Path, job: str, but: Path | None = None) -> tuple[Staging, FileLock] | None:
    """Refuse to work beside a living process; take over what a dead one left, or delete it if it is of no use."""
    taken = None
    for path in _beside(out, "tmp", LOCK):
        if path == but:
            continue
        lock = FileLock(path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{out}: is being made by {lock_holder(path / MAKER)} ({path.name}); wait for it, or end it"
            ) from None
        if job and taken is None and _job_of(path) == job:
            taken = Staging(path, resumed=True), lock
            continue
        if (path / MAKER).exists():
            print(f"{path}: left behind by another job that was interrupted; deleted", file=sys.stderr)
        lock.release()
        _delete(path, LOCK)
    return taken


def _beside(out: Path, what: str, sign: str) -> list[Path]:
    """Return the folders ``OUT.what-PID`` beside ``out`` that are empty or have a file ``sign``, hence ours."""
    name = re.compile(re.escape(f"{out.name}.{what}-") + r"\d+")
    found = [path for path in out.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
    return sorted(path for path in found if (path / sign).exists() or not any(path.iterdir()))


def _delete(folder: Path, sign: str) -> None:
    """Delete a folder, last the file by which ``_beside`` knows it as ours: this process may be killed meanwhile."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != sign:
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _job_of(path: Path) -> str | None:
    """Return the job of the process that made a staging folder, or None if its record is damaged."""
    try:
        maker = parse_json((path / MAKER).read_bytes())
    except (OSError, ValueError):
        return None
    return maker.get("job") if isinstance(maker, dict) else None


def _put_in_place(staging: Path, out: Path, overwrite: bool, lock: FileLock, kind: Kind) -> None:
    check_free(out, overwrite, kind)
    old = out.with_name(f"{out.name}.old-{os.getpid()}")
    replaces = out.exists()
    if os.name == "nt":  # no folder with an open file can be renamed
        lock.release()
    if replaces:
        out.rename(old)
    try:
        staging.rename(out)
    except BaseException:
        if replaces:
            old.rename(out)
        raise
    for name in (JOURNAL, MAKER, LOCK):
        (out / name).unlink(missing_ok=True)
    lock.release()
    sync(out.parent)
    for path in _beside(out, "old", kind.sign):  # of a process that was killed here, too
        _delete(path, kind.sign)


def _sync_tree(folder: Path) -> None:
    """fsync all files of a folder, then the folders."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        sync(path)
