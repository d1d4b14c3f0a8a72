"""Read GT/LQ pairs from shards, by litdata: files of many pairs, local or in an object store, with a local cache."""

import json
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import first_line

INDEX = "index.json"
MOST_BYTES, MOST_PAIRS = 2**27, 10_000_000  # of the list; in one shard
NAME = re.compile(r"[A-Za-z0-9_-]{1,200}\.bin")
# index.json names the types of what is stored, and its tree as torch writes it: a type could be a pickle, and a tree
# name a module to import. So both must be those of a pair of text and bytes.
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
SPEC = [1, {"type": "builtins.dict", "context": '["key", "gt", "lq"]', "children_spec": [_LEAF] * 3}]
CONFIG = {
    "data_format": ["str", "bytes", "bytes"],
    "compression": None,
    "compression_level": None,
    "encryption": None,
    "ipc_compression": None,
    "item_loader": "PyTreeLoader",
}
WITHOUT_MEANING = {"chunk_bytes", "chunk_size", "compression_batch_size", "types"}  # for the reader, with that CONFIG
MISSING = 'shards need litdata: pip install "gramgan-plugin[shards]"'


@dataclass(frozen=True)
class StoredPair:
    """The encoded images of a pair.

    Attributes:
        key: ``NNNNNN_sNNN``.
        gt: a PNG or BMP file.
        lq: likewise.
    """

    key: str
    gt: bytes
    lq: bytes


class Shards:
    """The pairs in one or more folders of shards, numbered through.

    Args:
        roots: folders that ``basicsr prepare ... --to shards`` has written, or their URLs (``s3://...``).
        cache_dir: where shards of URLs are kept meanwhile; litdata's default if None.
        cache_size: bytes of that, or a text such as ``100GB``.

    Raises:
        UserError: if litdata is missing, or a root holds no shards of pairs.
    """

    def __init__(self, roots: Sequence[str], cache_dir: str | None = None, cache_size: str | int = "100GB") -> None:
        self.roots, self.cache_dir, self.cache_size = [str(root) for root in roots], cache_dir, cache_size
        self._opened: dict[int, Any] = {}
        self._owner = os.getpid()
        by_root = [self._index(number) for number in range(len(self.roots))]
        self.sizes = [size for sizes in by_root for size in sizes]
        self.starts = [0, *accumulate(map(sum, by_root))]

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, number: int) -> StoredPair:
        """Return a pair.

        Raises:
            UserError: if its shard is missing or damaged.
        """
        root = bisect_right(self.starts, number) - 1
        try:
            item = self._open(root)[number - self.starts[root]]
            return StoredPair(str(item["key"]), bytes(item["gt"]), bytes(item["lq"]))
        except Exception as error:  # damage; or the object store's client, which has classes of its own
            place = number - self.starts[root]
            raise UserError(f"{self.roots[root]}: pair {place} cannot be read ({first_line(error)})") from error

    def _index(self, number: int) -> list[int]:
        """Check a root's list of shards, and return the number of pairs in each."""
        root = self.roots[number]
        remote = "://" in root
        folder = Path(self._open(number).cache_dir.path) if remote else Path(root)
        try:
            return read_index(folder, with_files=not remote)
        except UserError as error:
            raise UserError(f"{root}: {error}") from error

    def _open(self, root: int) -> Any:
        """Return litdata's reader of a root, of this process."""
        if self._owner != os.getpid():  # a forked worker: threads and maps are the parent's
            self._opened, self._owner = {}, os.getpid()
        if root not in self._opened:
            self._opened[root] = streaming_dataset(self.roots[root], self.cache_dir, self.cache_size)
        return self._opened[root]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}


def read_index(folder: Path, with_files: bool = True) -> list[int]:
    """Read a folder's list of shards; nothing in it may lead litdata to other types, files or code.

    Args:
        folder: of ``index.json``.
        with_files: whether the shards lie beside it, and must have the sizes and numbers of pairs that it says.

    Returns:
        The number of pairs in each shard.

    Raises:
        UserError: if it is missing, damaged, or not of ``prepare --to shards``.
    """
    path = folder / INDEX
    if not path.is_file():
        raise UserError(f"no shards ({INDEX} is missing); make them by `prepare --to shards`")
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{INDEX} is larger than any list of shards")
    try:
        index = json.loads(path.read_text("utf-8"))  # as litdata reads it: no other encoding
        config, chunks = index["config"], index["chunks"]
        plain = json.loads(config.pop("data_spec")) == SPEC and {key: config.get(key) for key in CONFIG} == CONFIG
        # litdata takes "compression" to be there.
        plain = plain and {"compression"} <= set(config) <= set(CONFIG) | WITHOUT_MEANING
        shards = {str(chunk["filename"]): (chunk["chunk_size"], chunk["chunk_bytes"]) for chunk in chunks}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{INDEX} is damaged ({first_line(error) or type(error).__name__})") from error
    sizes = all(type(n) is int and type(m) is int and 0 < n <= MOST_PAIRS and m > 0 for n, m in shards.values())
    if not (plain and sizes and shards and len(shards) == len(chunks) and all(map(NAME.fullmatch, shards))):
        raise UserError(f"{INDEX} is not of pairs of `prepare --to shards`")
    for name, (pairs, size) in shards.items() if with_files else ():
        shard = folder / name
        if not shard.is_file() or shard.stat().st_size != size:
            raise UserError(f"{name} is missing, or not of the {size} bytes that {INDEX} says; copy it again")
        if not _is_whole(shard, pairs, size):
            raise UserError(
                f"{name} is damaged: its table does not fit the {pairs} pairs that {INDEX} says; copy it again"
            )
    return [pairs for pairs, _ in shards.values()]


def _is_whole(shard: Path, pairs: int, size: int) -> bool:
    """Return whether a shard's table, the number of pairs and where each begins and the last ends, fits the file."""
    with shard.open("rb") as stream:
        table = np.frombuffer(stream.read(4 * (pairs + 2)), "<u4").astype(np.int64)
    if len(table) != pairs + 2 or table[0] != pairs:
        return False
    begins = table[1:]
    return bool(begins[0] == 4 * (pairs + 2) and begins[-1] == size and (np.diff(begins) > 0).all())


def streaming_dataset(root: str, cache_dir: str | None, cache_size: str | int) -> Any:
    """Open a root by litdata, which otherwise asks a server for its newest version.

    Raises:
        UserError: if litdata is missing, or cannot open it.
    """
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    try:
        from litdata import StreamingDataset
    except ImportError as error:
        raise UserError(MISSING) from error
    try:
        return StreamingDataset(
            root,
            cache_dir=cache_dir,
            shuffle=False,
            max_cache_size=cache_size,
            batch_decode=False,  # one pair at a time: a damaged one costs no other
        )
    except Exception as error:  # of the object store's client, which has classes of its own
        raise UserError(f"{root}: cannot be opened ({first_line(error)})") from error
