"""Build a folder atomically, so that a later process can resume the work if this one is killed."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.utils.interruptions import explained, is_from_outside, raise_explained
from gramgan_plugin.utils.io import expanded, lock_holder, parse_json, real_path, replace_file, sync

LOCK = ".lock"
MAKER = ".maker.json"
MOVED = ".moved.json"  # marks a folder that was moved aside
UNFINISHED = ".unfinished"  # ends the name of a folder being made


@dataclass(frozen=True)
class FolderType:
    """A type of output folder, and how to recognise one that may be replaced.

    Attributes:
        sign: a file that every such folder has.
        why_not_replaced: returns why a path must not be replaced ("holds X"), or None if it may be.
    """

    sign: str
    why_not_replaced: Callable[[Path], str | None]


class Staging:
    """A folder being filled.

    Attributes:
        path: the folder.
        resumed: whether it has the work of a killed process.
        work_done: returns how much is done, in words; "" as long as there is nothing to resume. What an earlier process
            did counts until the block says more.
    """

    def __init__(self, path: Path, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self.work_done: Callable[[], str] = lambda: "there is earlier work" if resumed else ""


@contextmanager
def staged_folder(out: Path, folder_type: FolderType, overwrite: bool = False) -> Iterator[Path]:
    """Build a folder beside its place, then rename it; :func:`staging` for work that cannot be resumed."""
    with staging(out, folder_type, overwrite) as stage:
        yield stage.path


@contextmanager
def staging(out: Path, folder_type: FolderType, overwrite: bool = False, job: str = "") -> Iterator[Staging]:
    """Build a folder beside its place, then rename it.

    The block fills ``OUT.unfinished``, which is locked while this process lives. If it succeeds, the folder is synced
    to the disk and renamed to ``out``. A folder to be replaced is named ``OUT.moved-aside`` just before and deleted
    after; if a process is killed in between, the next one moves it back first. If the block fails, the unfinished
    folder is deleted and ``out`` stays as it was. The folder is kept for the next process with the same ``job`` if this
    process is killed, or if the cause is external (Ctrl-C, SIGTERM, a full disk) and ``work_done`` reports work to
    resume.

    Args:
        out: the final name.
        folder_type: the type of the folder.
        overwrite: replace an existing folder of the same type.
        job: a short text that identifies the work; "" never resumes.

    Raises:
        UserError: if ``out`` exists and may not be replaced, cannot be written, is being made by another process, or
            the disk is full.
        Preempted: after SIGTERM, if the block lets an ``interruptions.TerminatedError`` out.
    """
    out = real_path(out)
    if overwrite:
        put_back(out, folder_type)
    check_free(out, folder_type, overwrite)
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
        kept = stage.work_done() if is_from_outside(error) else ""
        if not kept:
            _delete(stage.path, MAKER)  # while it is locked, so that no other process fills it
        lock.release()
        raise_explained(error, out, kept and f"{kept}, kept in {stage.path.name}")
        raise


def check_free(out: Path, folder_type: FolderType, overwrite: bool) -> None:
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
    aside = moved_aside(out)
    if not os.path.lexists(out) and _is_ours(aside, MOVED) and (aside / folder_type.sign).is_file():
        with file_errors(out):
            aside.rename(out)
            (out / MOVED).unlink()
        print(f"{out}: put back from {aside.name}, where a killed process had left it", file=sys.stderr)


def unfinished(out: Path) -> Path:
    """Return where a folder is made."""
    return out.with_name(out.name + UNFINISHED)


def moved_aside(out: Path) -> Path:
    """Return where a folder is while another takes its place."""
    return out.with_name(f"{out.name}.moved-aside")


def _claim(out: Path, job: str) -> tuple[Staging, FileLock]:
    """Return the unfinished folder, locked: with the work of a dead process if the job is the same, otherwise empty."""
    path = unfinished(out)
    for place, mark in ((path, MAKER), (moved_aside(out), MOVED)):
        if os.path.lexists(place) and not _is_ours(place, mark):
            raise UserError(f"{place}: is in the way, and was not written by this package; rename it")
    path.mkdir(exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        maker = lock_holder(path / MAKER)
        raise UserError(f"{out}: is being made by {maker} ({path.name}); wait for it, or end it") from None
    maker_file = path / MAKER
    try:
        if not (path / LOCK).exists():  # the last process has just renamed or deleted the folder
            raise UserError(f"{out}: another process has just made it, or failed to; run the command again")
        resumed = job != "" and _job_of(maker_file) == job
        if not resumed:
            if maker_file.exists():
                print(f"{path}: left behind by another job that was interrupted; deleted", file=sys.stderr)
            _empty(path, MAKER)
        record = {"job": job, "host": socket.gethostname(), "pid": os.getpid()}
        replace_file(maker_file, json.dumps(record).encode("ascii"))
    except BaseException:
        lock.release()
        raise
    return Staging(path, resumed), lock


def _is_ours(folder: Path, mark: str) -> bool:
    """Return whether a folder, not a link to one, has the file ``mark``, or nothing but our lock."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return (mark in names and _record(folder / mark) is not None) or names <= {LOCK}


def _delete(folder: Path, mark: str) -> None:
    """Delete a folder of ours, its file ``mark`` last, so that the rest is known as ours if this process is killed."""
    if _is_ours(folder, mark):
        _empty(folder, mark)
        (folder / LOCK).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path, mark: str) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in (mark, LOCK):
                path.unlink()


def _job_of(maker_file: Path) -> str | None:
    """Return the job of the process that made an unfinished folder, or None if its record is damaged."""
    maker = _record(maker_file)
    return None if maker is None else maker.get("job")


def _record(path: Path) -> dict[str, Any] | None:
    """Return what we wrote into a file of ours, or None if it is something else."""
    try:
        record = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"host", "pid"} <= record.keys() else None


def _put_in_place(staging: Path, out: Path, overwrite: bool, lock: FileLock, folder_type: FolderType) -> None:
    check_free(out, folder_type, overwrite)
    aside = moved_aside(out)
    _delete(aside, MOVED)  # of a process that was killed while it deleted it
    replaces = out.exists()
    if os.name == "nt":  # a folder with an open file cannot be renamed
        lock.release()
    if replaces:
        moved = {"host": socket.gethostname(), "pid": os.getpid()}
        (out / MOVED).write_text(json.dumps(moved), encoding="ascii")
        sync(out / MOVED)
        out.rename(aside)
    try:
        staging.rename(out)
    except BaseException:
        if replaces:
            aside.rename(out)
            (out / MOVED).unlink()
        raise
    for name in (MAKER, LOCK):
        (out / name).unlink(missing_ok=True)
    lock.release()
    sync(out.parent)
    _delete(aside, MOVED)


def _sync_tree(folder: Path) -> None:
    """Sync all files of a folder, then its folders."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync(path)
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
        sync(path)
