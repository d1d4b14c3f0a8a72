"""``experiments/NAME/``: made, archived, locked, and what is recorded in it."""

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from gramgan_plugin.checkpoints.files import save_json
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.models.components import with_defaults

HOLDER = ".lock.json"


@contextmanager
def open_run_folder(folder: Path, *, keep: bool) -> Iterator[Path]:
    """Hold a run's folder for as long as the run lives.

    Args:
        folder: ``experiments/NAME`` or ``results/NAME``.
        keep: go on in a folder that is there (resume). Otherwise it is renamed to ``NAME_archived_TIME``, as
            upstream does, and a new one is made.

    Yields:
        The folder, with its lock held.

    Raises:
        UserError: if another run holds it; the message says on which machine and which process.
    """
    if folder.exists() and not keep:
        with _hold(folder):
            archive = folder.with_name(f"{folder.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}")
            _release_name(folder, archive)
    folder.mkdir(parents=True, exist_ok=True)
    with _hold(folder):
        yield folder


def record_run(folder: Path, opt: dict[str, Any]) -> None:
    """Write what is needed to repeat the run: ``options.yml`` and ``environment.json``.

    The options are resolved and have the defaults of networks, losses, optimizers, schedule and metrics, too.
    """
    temporary = folder / ".options.yml.tmp"
    text = yaml.safe_dump(_plain(with_defaults(opt)), sort_keys=False, allow_unicode=True)
    with file_errors(folder / "options.yml"):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / "options.yml")
    save_json(environment(), folder / "environment.json")


def environment() -> dict[str, Any]:
    """Versions, and the commit and dirty flag of the working directory if it is a git checkout (no remotes)."""
    packages: dict[str, str | None] = {}
    for name in ("gramgan-plugin", "basicsr", "torch", "torchvision", "numpy", "opencv-python", "lmdb"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {"python": platform.python_version(), "system": platform.system(), "packages": packages, "git": _git()}


def _git() -> dict[str, Any] | None:
    try:
        commit = _run_git("rev-parse", "HEAD")
        dirty = bool(_run_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _run_git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        with file_errors(folder / ".lock"):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{folder}: in use by {_holder(folder)}; wait for it, or give this run another `name`"
        ) from error
    try:
        save_json({"host": socket.gethostname(), "pid": os.getpid()}, folder / HOLDER)
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {holder['host']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _release_name(folder: Path, archive: Path) -> None:
    number = 1
    target = archive
    while target.exists():
        number += 1
        target = archive.with_name(f"{archive.name}_{number}")
    (folder / HOLDER).unlink(missing_ok=True)
    folder.rename(target)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return value
