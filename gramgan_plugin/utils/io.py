"""Write files atomically, sync and hash them; read and write JSON records and JSON lines. Imports nothing heavy."""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeGuard

from gramgan_plugin.errors import UserError, file_errors

MOST_BYTES = 2**20  # of a JSON record; more is not read
SHA256 = re.compile(r"[0-9a-f]{64}")


@contextmanager
def replacing(path: Path, *, synced: bool, shared: bool = False) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside it, then rename it. Make its folder if it is missing.

    If the block fails, the temporary file is deleted and ``path`` stays as it was.

    Args:
        path: the file.
        synced: sync the content before the rename, so that a loss of power leaves the old file or the new one.
        shared: several processes may write the file at once; the temporary name then ends in the process id.

    Yields:
        The temporary file, open for writing.

    Raises:
        UserError: if it cannot be written (a full disk, no permission).
    """
    if path.name in ("", "..") or (path.exists() and not (path.is_file() or path.is_dir())):
        raise UserError(f"{path}: a folder or a device; give the name of a file")
    temporary = path.with_name(f".{path.name}.tmp" + (f"-{os.getpid()}" if shared else ""))
    with file_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with file_errors(path):
        try:
            with temporary.open("wb") as stream:
                yield stream
                if synced:
                    stream.flush()
                    os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # report the first error, not this one
                temporary.unlink(missing_ok=True)
            raise


def replace_file(path: Path, content: bytes, synced: bool = False) -> None:
    """Write ``content`` to a file atomically; see ``replacing``.

    Raises:
        UserError: if it cannot be written.
    """
    with replacing(path, synced=synced) as stream:
        stream.write(content)


def save_json(data: Any, path: str | Path) -> None:
    """Write ``data`` as a JSON file with sorted keys, synced and atomically.

    Raises:
        UserError: if it cannot be written.
    """
    text = json.dumps(data, indent=2, sort_keys=True) + "\n"
    with replacing(Path(path), synced=True, shared=True) as stream:
        stream.write(text.encode())


def expanded(path: str | Path) -> Path:
    """Return the path with ``~`` replaced by the home folder; an unknown user's ``~name`` stays as it is.

    ``Path.expanduser`` raises a ``RuntimeError`` for such a name; here the path is reported as missing later.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111


def real_path(path: Path) -> Path:
    """Return the absolute path with all links resolved; a circular link stays as it is.

    ``Path.resolve`` raises a ``RuntimeError`` for it before Python 3.13; here the error comes when it is read.
    """
    return Path(os.path.realpath(expanded(path)))


def sync(path: Path) -> None:
    """Sync a file, or a folder's list of names, to the disk.

    Raises:
        OSError: if a file cannot be synced. Folders that cannot be synced (some network file systems) are ignored.
    """
    if not path.is_dir():
        _sync(path, os.O_RDWR)
    elif os.name != "nt":  # Windows cannot open folders
        with suppress(OSError):
            _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hex.

    Raises:
        OSError: if it cannot be read.
    """
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_file(path: str | Path) -> dict[str, Any]:
    """Return ``{"size": bytes, "sha256": hex digest}`` of a file."""
    return {"sha256": file_sha256(path), "size": Path(path).stat().st_size}


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is not JSON, or nested so deeply that it cannot be parsed.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_record(path: Path, newest: int, damaged: Callable[[Path, str], UserError], if_newer: str) -> dict[str, Any]:
    """Read a JSON object with a format version.

    Args:
        path: the file.
        newest: the highest known format.
        damaged: returns the error for a file and a reason.
        if_newer: what the user should do about a newer format; ends the message.

    Raises:
        UserError: if the file cannot be read, is damaged, or has a newer format. The message names the file.
    """
    with file_errors(path), path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        record = parse_json(data) if len(data) <= MOST_BYTES else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise damaged(path, "is not a JSON record")
    version = record.get("format")
    if not is_count(version):
        raise damaged(path, "'format' is not a number")
    if version > newest:
        raise UserError(f"{path}: written by a newer gramgan-plugin (format {version}, known is {newest}); {if_newer}")
    return record


def is_count(value: Any) -> TypeGuard[int]:
    """Return whether ``value`` is an integer of at least 0.

    >>> [is_count(value) for value in (0, 3, -1, 2.0, True, None)]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def lock_holder(record: Path) -> str:
    """Return which process holds a lock, ``process 12 on 'host'``, from the JSON file that it wrote beside the lock."""
    try:
        holder = parse_json(record.read_bytes())
        return f"process {int(holder['pid'])} on {holder['host']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


class JsonLines:
    """A file of JSON lines, opened for appending; each line is flushed at once.

    An incomplete last line, left by a killed process, is removed first.

    Args:
        path: the file; created if it is missing.

    Raises:
        UserError: if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with file_errors(path):
            _cut_off_torn_line(path)
            self.stream: IO[str] = path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line, see ``as_line``.

        Raises:
            UserError: if it cannot be written.
        """
        with file_errors(self.path):
            self.stream.write(as_line(record) + "\n")
            self.stream.flush()

    def close(self) -> None:
        """Close the file."""
        with file_errors(self.path):
            self.stream.close()


def as_line(record: Mapping[str, Any]) -> str:
    """Return a record as JSON; non-finite numbers become null, since JSON does not have them.

    >>> as_line({"iter": 3, "l_g_pix": float("nan"), "metrics": {"psnr": float("inf")}})
    '{"iter": 3, "l_g_pix": null, "metrics": {"psnr": null}}'
    """
    return json.dumps(_finite(record), allow_nan=False)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the records of a file with their line numbers; skip an incomplete last line.

    Raises:
        UserError: if the file cannot be read, or any other line is not a JSON object.
    """
    try:
        *whole, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate([*whole, last], start=1):
        try:
            record = parse_json(line)
        except ValueError as error:
            if number > len(whole):  # still being written, or left by a killed process
                return
            raise UserError(f"{path}, line {number}: not a line of JSON") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: not a line of JSON with names and values")
        yield number, record


def _cut_off_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as stream:
        end = stream.seek(0, 2)
        # A line has a few hundred bytes, so the first block nearly always contains a line end.
        place, block = end, 1 << 16
        while place > 0:
            start = max(0, place - block)
            stream.seek(start)
            found = stream.read(place - start).rfind(b"\n")
            if found >= 0:
                place = start + found + 1
                break
            place = start
        if place < end:
            stream.truncate(place)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
