"""Read and write files of tensors, without running code from them and without leaving them half written."""

import hashlib
import json
import os
import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gramgan_plugin.checkpoints.headers import FETCH_AGAIN, read_headers
from gramgan_plugin.errors import UserError, file_errors, os_problem
from gramgan_plugin.text import printable

# torch's zip writer reports a full disk as a RuntimeError.
TORCH_WRITE_ERROR = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos")
# Messages of torch's allocator.
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory")


def load_tensors(path: str | Path) -> Any:
    """Read a file written by ``torch.save`` to the CPU, without running any code that it may contain.

    The sizes that it declares are compared with the size of the file before anything is allocated, see
    ``read_headers``.

    Returns:
        What was saved: dense tensors and plain data.

    Raises:
        UserError: one line: if the file is missing, damaged or of another kind, or contains anything else.
    """
    read_headers(path)
    name = printable(str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own internals
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its messages advise to load the file unchecked
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            size = Path(path).stat().st_size / 1e6
            raise UserError(f"{name}: not enough memory for its {size:,.0f} MB; close other programs") from error
        raise UserError(f"{name}: a damaged checkpoint; {FETCH_AGAIN}") from error


def save_tensors(data: Any, path: str | Path) -> None:
    """Write a file by ``torch.save``: to a temporary name beside ``path``, then fsync and rename.

    Raises:
        UserError: if it cannot be written (a full disk, no permission); an older file at ``path`` stays as it was.
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
        with file_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            with file_errors(self.path):
                os.replace(self.temporary, self.path)  # noqa: PTH105  (the atomic call, named as such)
            return
        with suppress(OSError):  # of the two errors, the one that is there already is the one to tell
            self.temporary.unlink(missing_ok=True)
        problem = None
        if isinstance(error, OSError):
            problem = os_problem(error, self.path)
        elif isinstance(error, RuntimeError) and TORCH_WRITE_ERROR.search(str(error)):
            problem = f"{self.path}: cannot be written, probably for want of space ({_first_line(error)}); free some"
        if problem is not None:
            raise UserError(problem) from error


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
