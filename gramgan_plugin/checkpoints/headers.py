"""Read the keys, shapes and types of a checkpoint file without its data, and compare them with the file's size.

Every file is checked like this before it is loaded: a file that passes cannot make torch allocate more than its size
justifies, or read beyond the end of its data.
"""

import io
import os
import struct
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import torch

from gramgan_plugin.checkpoints.file_kinds import NOT_A_CHECKPOINT, other_kind, other_kind_of_archive
from gramgan_plugin.checkpoints.inert_pickle import (
    KEY_TYPES,
    Damaged,
    ForeignObject,
    Opaque,
    OtherProtocol,
    Storage,
    Unusable,
    load_inert,
)
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.safetensors_files import is_safetensors, read_safetensors_header
from gramgan_plugin.errors import UserError, os_problem
from gramgan_plugin.utils.text import did_you_mean, printable, shown

# Bytes of a pickle; that of a training state of 10,000 tensors has 2 MB.
MOST_PICKLE = 2**23
# Weights hardly compress; the moments of the first steps, with some zeros, do a little.
MOST_INFLATED = 8
DEEPEST = 64
LEAVES = (complex, torch.Tensor, torch.dtype, Opaque, *KEY_TYPES)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


def read_headers(path: str | Path) -> Any:
    """Return the content that ``load_tensors`` returns, but with tensors on the meta device (no data).

    Args:
        path: a file written by ``torch.save``, in its current (zip) or its older format, or a safetensors file.

    Raises:
        UserError: one line: if the file is missing, damaged or of another format (which is named), or holds objects
            other than tensors and plain data, or a tensor that is sparse, quantized or without data.
    """
    path = Path(path)
    name = printable(str(path))
    if not path.is_file():
        hint = did_you_mean(path, WEIGHTS, "") if path.parent == Path() else ""
        raise UserError(f"{name}: no such checkpoint file{hint}")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
            kind = other_kind(head)
            if kind is not None:
                raise UserError(f"{name}: {kind}")
            file.seek(0)
            if is_safetensors(head):
                return read_safetensors_header(path)[0]
            content, length = _read_zip(file, path) if head.startswith(b"PK") else _read_legacy(file, path)
        most = MOST_INFLATED * path.stat().st_size + MOST_PICKLE
        for where, leaf in _leaves(content, most=2 * length + 1000):
            most -= leaf.numel() * leaf.element_size() if isinstance(leaf, torch.Tensor) else 0
            if most < 0:
                raise Damaged("its tensors share their data and would take many times the size of the file")
            if isinstance(leaf, Unusable):
                raise UserError(f"{name}: {_name(where)} is {leaf.kind}; save it as an ordinary, dense tensor")
            if not isinstance(leaf, LEAVES):
                raise Damaged("it holds parts of tensors outside of tensors")
    except UserError:
        raise
    except OSError as error:
        raise UserError(os_problem(error, name) or f"{name}: cannot be read ({shown(error)})") from error
    except OtherProtocol as error:
        raise UserError(
            f"{name}: saved with pickle protocol {error}; save it again with torch.save's own, 2"
        ) from error
    except ForeignObject as error:
        raise UserError(f"{name}: {_foreign(str(error))}") from error
    except Damaged as error:
        raise UserError(f"{name}: a damaged checkpoint: {shown(error)}; {FETCH_AGAIN}") from error
    except Exception as error:  # a damaged pickle can raise anything, and none of it is a bug of ours
        raise UserError(f"{name}: a damaged checkpoint; {FETCH_AGAIN}") from error
    return content


FETCH_AGAIN = "copy or fetch it again"


def _read_zip(file: IO[bytes], path: Path) -> tuple[Any, int]:
    """Return the content of an archive of torch 1.6 or later, and the length of its pickle."""
    try:
        with zipfile.ZipFile(file) as archive:
            if not _directory_ends_where_it_says(
                file, archive.comment
            ):  # torch would read another directory than this reader
                raise Damaged("its directory is not where it says")
            members = {member.filename: member for member in archive.infolist()}
            total, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
            if len({name.lower() for name in members}) != len(archive.infolist()):
                raise Damaged("two members of one name")
            if total > MOST_INFLATED * size + MOST_PICKLE:
                raise Damaged(f"its {size / 1e6:,.1f} MB would inflate to {total / 1e6:,.1f} MB")
            prefix = archive.infolist()[0].filename.partition("/")[0] if members else ""
            if (kind := other_kind_of_archive(prefix, members.keys())) is not None:
                raise UserError(f"{printable(str(path))}: {kind}")
            pickled = members[f"{prefix}/data.pkl"]
            if pickled.file_size > MOST_PICKLE:
                raise Damaged(f"its keys alone take {pickled.file_size / 1e6:,.1f} MB")
            with archive.open(pickled) as stream:
                data = stream.read(MOST_PICKLE)
    except zipfile.BadZipFile as error:
        raise Damaged("its end is missing or its directory is not readable") from error

    def find(persistent_id: tuple[Any, ...], dtype: torch.dtype) -> Storage:
        key, _, numel = persistent_id
        storage = Storage(dtype, _count(numel))
        member = members.get(f"{prefix}/data/{key}")
        if type(key) is not str or member is None or member.file_size != storage.numel * dtype.itemsize:
            raise Damaged("a tensor's data is missing or of another size than its shape says")
        return storage

    return load_inert(io.BytesIO(data), find), len(data)


def _directory_ends_where_it_says(file: IO[bytes], comment: bytes) -> bool:
    """Return whether an archive's directory ends, by the size and place that are stated, at the record that follows."""
    last = file.seek(0, os.SEEK_END) - 22 - len(comment)
    file.seek(max(0, last - 20 - 56))
    before, record = file.read(last - file.tell()), file.read(22)
    size, offset = struct.unpack("<2L", record[12:20])
    if before[-20:].startswith(b"PK\x06\x07"):  # zip64's locator, and before it zip64's own record
        size, offset = struct.unpack("<2Q", before[40:56])
        last -= 20 + 56
        if before[-12:-4] != struct.pack("<Q", last):
            return False
    return bool(size + offset == last)


def _read_legacy(file: IO[bytes], path: Path) -> tuple[Any, int]:
    """Return the same for a file of torch before 1.6: some pickles, then the data of each storage."""
    data = file.read(MOST_PICKLE)
    stream = io.BytesIO(data)
    sizes: dict[Any, Storage] = {}
    views: dict[Any, Any] = {}  # parts of a storage, in files of torch before 0.4

    def find(persistent_id: tuple[Any, ...], dtype: torch.dtype) -> Storage:
        key, _, numel, view = persistent_id
        storage = Storage(dtype, _count(numel))
        known = sizes.setdefault(key, storage)
        if type(key) is not str or known.numel * known.dtype.itemsize != storage.numel * dtype.itemsize:
            raise Damaged("the sizes of a tensor's data do not agree")
        if view is None:
            return storage
        name, offset, length = view
        if views.setdefault(name, (key, view)) != (key, view):
            raise Damaged("the sizes of a tensor's data do not agree")
        if _count(offset) + _count(length) > storage.numel:
            raise Damaged("a tensor is larger than its data")
        return Storage(dtype, length)

    try:
        magic = load_inert(stream, _no_storage, with_tensors=False)
    except Exception:
        magic = None
    if magic != LEGACY_MAGIC:
        raise UserError(f"{printable(str(path))}: {NOT_A_CHECKPOINT}")
    if load_inert(stream, _no_storage, with_tensors=False) != LEGACY_PROTOCOL:
        raise Damaged("an unknown version of torch's older format")
    load_inert(stream, _no_storage, with_tensors=False)  # the system that wrote it
    content = load_inert(stream, find)
    length = stream.tell()
    keys = load_inert(stream, _no_storage, with_tensors=False)
    if sorted(keys) != sorted(sizes):
        raise Damaged("its list of data is not that of its tensors")
    place = stream.tell()
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8))
        if count != sizes[key].numel:
            raise Damaged("the sizes of a tensor's data do not agree")
        place += 8 + count * sizes[key].dtype.itemsize
    if place > path.stat().st_size:
        raise Damaged("its end is missing")
    return content, length


def _no_storage(persistent_id: tuple[Any, ...], dtype: torch.dtype) -> Storage:
    raise Damaged("a tensor where there should be none")


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**63:
        raise Damaged("a size is not a whole number")
    return number


def _leaves(content: Any, most: int) -> Iterator[tuple[Any, Any]]:
    """Yield each value that is not a container, with its path; refuse content that is too deep or too large.

    A container may hold itself, or one container many times.
    """
    levels: list[tuple[Any, Iterator[tuple[Any, Any]]]] = [(None, iter([("", content)]))]
    seen = 0
    while levels:
        where, members = levels[-1]
        key, value = next(members, (None, _END))
        seen += 1
        if len(levels) > DEEPEST or seen > most:
            raise Damaged("its lists and dicts are nested without end")
        if value is _END:
            levels.pop()
        elif isinstance(value, dict):
            levels.append(((where, key), iter(value.items())))
        elif isinstance(value, list | tuple):
            levels.append(((where, key), enumerate(value)))
        else:
            yield (where, key), value


_END = object()


def _name(where: Any) -> str:
    """Return a path such as ``params.conv.weight`` from the linked pairs of `_leaves`."""
    keys = []
    while where is not None:
        where, key = where
        keys.append(shown(key))
    return ".".join(reversed(keys)).removeprefix(".") or "its content"


def _foreign(name: str) -> str:
    name = name.replace("__builtin__.", "builtins.")  # as protocol 2 calls it
    package = name.partition(".")[0]
    what = f"it holds {shown(name)}, and to load that can run code"
    if package not in sys.modules and (not package.isidentifier() or find_spec(package) is None):
        what = f"it holds an object of the package {shown(package)}, which is not installed here"
    advice = "where it was made, save the weights alone: torch.save(net.state_dict(), FILE)"
    return f"not a checkpoint of plain tensors: {what}; {advice}"
