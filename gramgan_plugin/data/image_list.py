"""Read the text file of the option ``meta_info_file``, which lists images by name."""

from pathlib import Path, PurePosixPath

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import printable

LARGEST = 256 * 2**20  # bytes


def read_image_list(path: Path) -> list[str]:
    """Return the names in a list in BasicSR's format, ``0001_s001.png (480,480,3)`` on each line.

    Text after `` (`` is ignored; empty lines are skipped.

    Args:
        path: a text file in UTF-8.

    Returns:
        Relative paths with ``/``, in the file's order.

    Raises:
        UserError: if the file cannot be read, is empty, or names an image twice or outside its folder. The message
            begins with the path.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: above {LARGEST >> 20} MiB, too large for a list of names")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8; give one with an image's name on each line") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.partition(" (")[0].strip()
        if not name:
            continue
        if "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{path}, line {number}: {printable(name)[:100]} is not a name within a folder")
        if name in names:
            raise UserError(f"{path}, line {number}: {printable(name)} appears again after line {names[name]}")
        names[name] = number
    if not names:
        raise UserError(f"{path}: lists no images")
    return list(names)
