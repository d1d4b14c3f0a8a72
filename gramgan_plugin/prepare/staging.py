"""Build a folder atomically, so that a later process can resume the work if this one is killed."""

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

MARKER = "names.jsonl"  # in every prepared folder; a folder without it is never replaced
LOCK = ".lock"
MAKER = ".maker.json"


@dataclass(frozen=True)
class FolderType:
    """A type of output folder, and how to recognise one that may be replaced.

    Attributes:
        sign: a file that every such folder has.
        why_not_replaced: returns why a path must not be replaced ("holds X"), or None if it may be.
    """

    sign: str
    why_not_replaced: Callable[[Path], str | None]


def _why_not_data_set(path: Path) -> str | None:
    if path.is_dir() and ((path / MARKER).is_file() or not any(path.iterdir())):
        return None
    return f"was not written by 'prepare' (no {MARKER} in it)"


DATA_SET = FolderType(MARKER, _why_not_data_set)


class Staging:
    """A folder being filled.

    Attributes:
        path: the folder.
        resumed: whether it has the work of a killed process.
        work_done: returns how much is done, in words; "" as long as there is nothing to resume.
    """

    def __init__(self, path: Path, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self.work_done: Callable[[], str] = str


@contextmanager
def staged_folder(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Build a folder beside its place, then rename it; :func:`staging` for work that cannot be resumed."""
    with staging(out, overwrite) as stage:
        yield stage.path


@contextmanager
def staging(out: Path, overwrite: bool = False, job: str = "", folder_type: FolderType = DATA_SET) -> Iterator[Staging]:
    """Build a folder beside its place, then rename it.

    The block fills ``OUT.tmp-PID``, which is locked while this process lives. If it succeeds, the folder is synced to
    the disk and renamed to ``out``. A folder to be replaced is moved aside just before and deleted after; if a process
    is killed in between, the next one moves it back first. If the block fails, the temporary folder is deleted and
    ``out`` stays as it was. The folder is kept for the next process with the same ``job`` if this process is killed,
    or if the cause is external (Ctrl-C, SIGTERM, a full disk) and ``work_done`` reports work to resume.

    Args:
        out: the final name.
        overwrite: replace an existing folder of the same type.
        job: a short text that identifies the work; "" never resumes.
        folder_type: the type of the folder.

    Raises:
        UserError: if ``out`` exists and may not be replaced, cannot be written, is being made by another process, or
            the disk is full.
        Preempted: after SIGTERM, if the block lets a ``failures.TerminatedError`` out.
    """
    out = real_path(out)
    if overwrite:
        put_back(out, folder_type)
    check_free(out, overwrite, folder_type)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage, lock = _claim(out, job)
    except OSError as error:
        raise explained(error, out) from error
    try:
        yield stage
        _sync_tree(stage.path)
        _put_in_place(stage.path, out, overwrite, lock, folder_type)
    except BaseException as error:
        kept = stage.work_done() if isinstance(error, FROM_OUTSIDE) else ""
        lock.release()
        if not kept:
            _delete(stage.path, LOCK)
        raise_explained(error, out, kept and f"{kept}, kept in {stage.path.name}")
        raise


def check_free(out: Path, overwrite: bool, folder_type: FolderType = DATA_SET) -> None:
    """Refuse an output name that exists.

    Raises:
        UserError: see :func:`staging`.
    """
    out = expanded(out)
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UserError(f"{out}: exists already; choose another --out, or pass --overwrite to replace it")
    why_not_replaced = folder_type.why_not_replaced(out)
    if why_not_replaced is not None:
        raise UserError(f"{out}: {why_not_replaced}, so it is not replaced")


def put_back(out: Path, folder_type: FolderType) -> None:
    """Move a folder back that a process moved aside before it was killed.

    Raises:
        UserError: if it cannot be renamed.
    """
    out = real_path(out)
    if os.path.lexists(out) or not out.parent.is_dir():
        return
    with file_errors(out):
        for path in _beside(out, "old", folder_type.sign):
            if (path / folder_type.sign).is_file():
                path.rename(out)
                print(f"{out}: put back from {path.name}, where a killed process had left it", file=sys.stderr)
                return


def _claim(out: Path, job: str) -> tuple[Staging, FileLock]:
    """Return the staging folder, locked: that of a dead process with the same job, or a new one."""
    found = _inspect_others(out, job)
    if found is None:
        path = out.with_name(f"{out.name}.tmp-{os.getpid()}")
        path.mkdir()
        lock = FileLock(path / LOCK)
        try:
            lock.acquire(timeout=0)
            _inspect_others(out, "", but=path)  # another process may have made one meanwhile
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


def _inspect_others(out: Path, job: str, but: Path | None = None) -> tuple[Staging, FileLock] | None:
    """Refuse to work beside a living process; take over the folder of a dead one, or delete it if the job differs."""
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
    """Return the folders ``OUT.what-PID`` beside ``out`` that are ours: empty or with a file ``sign``."""
    name = re.compile(re.escape(f"{out.name}.{what}-") + r"\d+")
    found = [path for path in out.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
    return sorted(path for path in found if (path / sign).exists() or not any(path.iterdir()))


def _delete(folder: Path, sign: str) -> None:
    """Delete a folder, its file ``sign`` last, so that ``_beside`` finds it again if this process is killed."""
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


def _put_in_place(staging: Path, out: Path, overwrite: bool, lock: FileLock, folder_type: FolderType) -> None:
    check_free(out, overwrite, folder_type)
    old = out.with_name(f"{out.name}.old-{os.getpid()}")
    replaces = out.exists()
    if os.name == "nt":  # a folder with an open file cannot be renamed
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
    for path in _beside(out, "old", folder_type.sign):  # including those of processes killed at this point
        _delete(path, folder_type.sign)


def _sync_tree(folder: Path) -> None:
    """Sync all files of a folder, then its folders."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        sync(path)
