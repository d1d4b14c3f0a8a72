"""Fingerprint a training set, so that a resumed run can check whether its data is the same."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb

from gramgan_plugin.data.images import SUFFIXES
from gramgan_plugin.data.lmdb_environment import META_INFO, extent
from gramgan_plugin.data.lmdb_manifest import changed_since, read_manifest
from gramgan_plugin.data.shards import INDEX
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.sections import section

NAMES_OF_ROOTS = ("dataroot", "meta_info")
# Options that do not change the samples; the batch size and the enlargement are recorded elsewhere.
WITHOUT_EFFECT = frozenset(
    (
        "name",
        "phase",
        "io_backend",
        "num_worker_per_gpu",
        "batch_size_per_gpu",
        "dataset_enlarge_ratio",
        "use_shuffle",
        "pin_memory",
        "persistent_workers",
        "prefetch_mode",
        "num_prefetch_queue",
        "max_unreadable",
    )
)
PLACING = ("bytes", "transactions")  # facts about an LMDB's file, not about its images
WHOLE_FILE = 64 * 2**20  # bytes; smaller files are read whole
MIB = 2**20
_ENDINGS = tuple(SUFFIXES)


def fingerprint(options: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a dataset's data, and the options that change its samples.

    Only names, sizes and lists are read, so 100,000 images take about a second. Paths and times do not count: a copy
    in another place is the same data. An LMDB prepared or verified by ``basicsr prepare`` has the fingerprint of its
    content in its manifest; if both sides have one, repacking or compacting is no change, and other images under the
    same keys are detected. Not detected are: in a folder, an image replaced by one of the same name and size; in an
    LMDB, images overwritten directly in the file; without a manifest, a new LMDB with the same list and page count.
    Without a manifest, compacting (``mdb_copy -c``) counts as a change.

    Args:
        options: the dataset's block. Options whose name contains ``dataroot`` or ``meta_info`` and whose value is an
            existing path, or a list of such paths, are its roots.

    Returns:
        ``roots``: for each root option a list of records, by ``kind``: ``lmdb`` (``meta_info``, the SHA-256 of its
        list; ``entries``, ``bytes`` and ``transactions``, see ``extent``; ``content``, from its manifest), ``folder``
        (``files``, the number of images including subfolders; ``bytes``; ``names``, the SHA-256 of their relative paths
        and sizes), ``shards`` (``content``, the SHA-256 of their list), ``file`` (``bytes``; ``content``, a SHA-256).
        ``options``: numbers, flags and texts.
    """
    roots = {}
    for name, value in options.items():
        if _is_root(name):
            paths = value if isinstance(value, list | tuple) else [value]
            found = [_root(expanded(path)) for path in paths if isinstance(path, str | Path) and str(path)]
            if found and None not in found:
                roots[name] = found
    plain = {name: _plain(value) for name, value in options.items() if not _is_root(name)}
    return {
        "roots": roots,
        "options": {
            name: plain[name] for name in sorted(plain) if name not in WITHOUT_EFFECT and plain[name] is not None
        },
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences between two fingerprints of a training set, one line each; none if they are the same.

    Except for options, only facts that both fingerprints have are compared.

    Example:
        >>> changes({"options": {"gt_size": 128}}, {"options": {"gt_size": 192, "use_rot": True}})
        ['gt_size: 192, was 128', 'use_rot: True, was not set']
    """
    lines = []
    for name in sorted(section(before, "roots").keys() & section(now, "roots").keys()):
        then, there = before["roots"][name], now["roots"][name]
        if len(then) != len(there):
            lines.append(f"{name}: {len(there)} paths, were {len(then)}")
            continue
        for place, pair in enumerate(zip(then, there, strict=True)):
            what = _difference(*pair)
            if what is not None:
                lines.append(f"{name}{f'[{place}]' if len(there) > 1 else ''}: {what}")
    if "options" in before and "options" in now:
        old, new = section(before, "options"), section(now, "options")
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                lines.append(f"{name}: {new.get(name, 'not set')}, was {old.get(name, 'not set')}")
    return lines


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return the first difference between two records of a root, in the order of ``_WORDS``, or None."""
    if old["kind"] != new["kind"]:
        return f"{_KINDS[new['kind']]}, was {_KINDS[old['kind']]}"
    same_images = new["kind"] == "lmdb" and "content" in new and old.get("content") == new["content"]
    for key, words in _WORDS.items():
        if same_images and key in PLACING:
            continue
        if key in old and key in new and old[key] != new[key]:
            return words.format(old=old[key], new=new[key])
    return None


_KINDS = {"lmdb": "an LMDB", "shards": "a folder of shards", "folder": "a folder", "file": "a file"}
_WORDS = {
    "files": "{new} files, were {old}",
    "entries": "{new} entries, were {old}",
    "bytes": "{new} bytes, were {old}",
    "meta_info": f"{META_INFO} is not the same",
    "names": "names or sizes of some files are not the same",
    "content": "its content is not the same",
    "transactions": "written to since",
}


def _is_root(name: str) -> bool:
    return any(part in name for part in NAMES_OF_ROOTS)


def _root(path: Path) -> dict[str, Any] | None:
    """Return the record of a path; None if it is missing or unreadable, which is reported elsewhere."""
    with suppress(OSError):
        if (path / "data.mdb").is_file():
            return _lmdb(path)
        if (path / INDEX).is_file():  # of shards
            return {"kind": "shards", "content": _content(path / INDEX)}
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            return {"kind": "file", "bytes": path.stat().st_size, "content": _content(path)}
    return None


def _lmdb(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": "lmdb"}
    if (path / META_INFO).is_file():
        found["meta_info"] = _content(path / META_INFO)
    with suppress(lmdb.Error):
        found |= extent(path)
    with suppress(lmdb.Error, UserError):  # reading it will report it
        record = read_manifest(path)
        if record is not None and changed_since(record, path) is None:
            found["content"] = record["content"]
    return found


def _folder(path: Path) -> dict[str, Any]:
    digest, files, total = hashlib.sha256(), 0, 0
    for name, size in sorted(_images(path, b"", set())):
        digest.update(b"%b\0%d\n" % (name, size))
        files, total = files + 1, total + size
    return {"kind": "folder", "files": files, "bytes": total, "names": digest.hexdigest()}


def _images(folder: str | Path, prefix: bytes, above: set[tuple[int, int]]) -> Iterator[tuple[bytes, int]]:
    """Yield the relative path and size of each image; links are followed, except circular ones."""
    status = Path(folder).stat()
    itself = (status.st_dev, status.st_ino)
    if itself in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            with suppress(OSError):  # no permission, or the file was deleted meanwhile
                name = prefix + os.fsencode(entry.name)
                if entry.is_dir():
                    yield from _images(entry.path, name + b"/", above | {itself})
                elif entry.name.lower().endswith(_ENDINGS) and entry.is_file():
                    yield name, entry.stat().st_size


def _content(path: Path) -> str:
    """Return the SHA-256 of a file, or of its first and last MiB if it is large."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if path.stat().st_size <= WHOLE_FILE:
            while block := file.read(MIB):
                digest.update(block)
        else:
            digest.update(file.read(MIB))
            file.seek(-MIB, os.SEEK_END)
            digest.update(file.read(MIB))
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Return an option as a checkpoint stores it; None for values that cannot be compared, and for paths."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return None if "/" in value or os.sep in value else value
    if isinstance(value, list | tuple):
        members = [_plain(member) for member in value]
        return None if None in members else members
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items() if _plain(member) is not None}
    return None
