"""Files written whole or not at all. Imports nothing heavy; checkpoints, which are synced too, have their own."""

import os
from contextlib import suppress
from pathlib import Path

from gramgan_plugin.errors import file_errors


def replace_file(path: Path, content: bytes, synced: bool = False) -> None:
    """Write a file under a temporary name beside it, then rename it; its folder is made if it is not there.

    Args:
        path: the file; what stood there before stays until the new one is whole.
        content: all of it.
        synced: the content stands on the disk before the rename, so that a loss of power leaves one or the other.

    Raises:
        UserError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                if synced:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def expanded(path: str | Path) -> Path:
    """Return the path with ``~`` replaced by the home folder; an unknown user's ``~name`` stays as it is.

    ``Path.expanduser`` raises a ``RuntimeError`` for it; here the path is then reported as missing.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111


def real_path(path: Path) -> Path:
    """Return the absolute path, all links followed; one that leads in a circle stays as it is.

    ``Path.resolve`` raises a ``RuntimeError`` for such a link before Python 3.13; here its reader names it.
    """
    return Path(os.path.realpath(expanded(path)))


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, stand on the disk.

    Raises:
        OSError: if a file cannot be synced; some network file systems sync no folders, which is let pass.
    """
    if not path.is_dir():
        _sync(path, os.O_RDWR)
    elif os.name != "nt":  # Windows opens no folders
        with suppress(OSError):
            _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
