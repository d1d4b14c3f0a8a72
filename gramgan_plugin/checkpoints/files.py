"""Reading and writing checkpoint files: nothing is unpickled, nothing is left half written."""

import errno
import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from gramgan_plugin.errors import UserError


def load_tensors(path: str | Path) -> Any:
    """Read a file written by ``torch.save``, on the CPU, without running any code that it may hold.

    Raises:
        UserError: if the file is missing, is no checkpoint, is damaged, or holds more than tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not a checkpoint of plain tensors, so it is not opened (a file that needs full unpickling "
            f"can run code): {_first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable checkpoint (damaged or cut short?): {_first_line(error)}") from error


def save_tensors(data: Any, path: str | Path) -> None:
    """``torch.save`` to a temporary name beside ``path``, fsync, rename.

    Raises:
        UserError: if the disk is full; what stood at ``path`` before is untouched.
    """
    path = Path(path)
    with _Replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(data, stream)
        _flush(stream)


def save_json(data: Any, path: str | Path) -> None:
    """Write ``data`` as JSON in the same way as ``save_tensors``."""
    path = Path(path)
    with _Replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        json.dump(data, stream, indent=2, sort_keys=True)
        stream.write("\n")
        _flush(stream)


def describe_file(path: str | Path) -> dict[str, Any]:
    """``{"size": bytes, "sha256": hex digest}`` of a file."""
    with Path(path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": Path(path).stat().st_size, "sha256": digest}


class _Replacing:
    """Hands out a temporary name; renames it to ``path`` on success and removes it on failure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            os.replace(self.temporary, self.path)  # noqa: PTH105  (the atomic call, named as such)
            return
        self.temporary.unlink(missing_ok=True)
        # torch reports a full disk as a RuntimeError of its zip writer.
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (isinstance(error, RuntimeError) and "write" in str(error)):
            raise UserError(
                f"{self.path}: cannot be written, no space left on the disk ({_first_line(error)})"
            ) from error


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
