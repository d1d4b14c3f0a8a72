"""Read files of tensors without running code from them, and write them completely or not at all."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from gramgan_plugin.checkpoints.headers import FETCH_AGAIN, read_headers
from gramgan_plugin.checkpoints.inert_pickle import OPAQUE, Opaque
from gramgan_plugin.checkpoints.safetensors_files import is_safetensors
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import replacing
from gramgan_plugin.utils.text import first_line, printable

# torch's zip writer reports a full disk as a RuntimeError.
TORCH_WRITE_ERROR = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos")
# Messages of torch's allocator.
NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory")


def load_tensors(path: str | Path) -> Any:
    """Read a file written by ``torch.save``, or a safetensors file, to the CPU, without running code from it.

    The declared sizes are compared with the size of the file before anything is allocated, see ``read_headers``.

    Returns:
        The saved dense tensors and plain data; ``Opaque`` in place of what MMEngine logs.

    Raises:
        UserError: one line: if the file is missing, damaged or of another format, or contains anything else.
    """
    read_headers(path)
    name = printable(str(path))
    with Path(path).open("rb") as stream:
        flat = is_safetensors(stream.read(10))
    try:
        if flat:
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's internals
            log = torch.serialization.safe_globals([(Opaque, each) for each in OPAQUE])
            with log, Path(path).open("rb") as stream:  # given a name, torch takes it for safetensors by its suffix
                return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's messages advise to load the file unchecked
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            size = Path(path).stat().st_size / 1e6
            raise UserError(f"{name}: not enough memory for its {size:,.0f} MB; close other programs") from error
        raise UserError(f"{name}: a damaged checkpoint; {FETCH_AGAIN}") from error


def save_tensors(data: Any, path: str | Path) -> None:
    """Write a file by ``torch.save``: to a temporary name beside ``path``, then fsync and rename.

    Raises:
        UserError: if it cannot be written (a full disk, no permission); an older file at ``path`` stays as it was.
    """
    try:
        with replacing(Path(path), synced=True, shared=True) as stream:
            torch.save(data, stream)
    except RuntimeError as error:
        if not TORCH_WRITE_ERROR.search(str(error)):
            raise
        why = f"cannot be written, probably for want of space ({first_line(error)}); free some"
        raise UserError(f"{path}: {why}") from error
