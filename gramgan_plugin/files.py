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


def expand_home(path: str | Path) -> Path:
    """Replace ``~`` in a path; one that names a user whom the system does not know stays, and is no file's.

    >>> expand_home("~nobody-of-this-name/x").as_posix()
    '~nobody-of-this-name/x'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


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
