"""Read GT/LQ pairs from shards, by litdata: files of many pairs, local or in an object store, with a local cache."""

import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import first_line

INDEX = "index.json"
# What a pair consists of; index.json names the types, and a type of litdata's could be a pickle.
FORMAT = {"key": "str", "gt": "bytes", "lq": "bytes"}
MOST_PAIRS = 10_000_000  # in one shard
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
        indices = [self._index(number) for number in range(len(self.roots))]
        self.by_root = [[int(chunk["chunk_size"]) for chunk in index["chunks"]] for index in indices]
        self.sizes = [size for sizes in self.by_root for size in sizes]
        self.starts = [0, *accumulate(sum(sizes) for sizes in self.by_root)]

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
        except (KeyError, TypeError, ValueError, IndexError, OSError, RuntimeError) as error:
            place = number - self.starts[root]
            raise UserError(f"{self.roots[root]}: pair {place} cannot be read ({first_line(error)})") from error

    def _index(self, number: int) -> dict[str, Any]:
        """Return and check a root's list of shards."""
        root = self.roots[number]
        try:
            folder = Path(self._open(number).cache_dir.path) if "://" in root else Path(root)
            index: dict[str, Any] = json.loads((folder / INDEX).read_bytes())
            config, sizes = index["config"], [int(chunk["chunk_size"]) for chunk in index["chunks"]]
            named = json.loads(json.loads(config["data_spec"])[1]["context"]) if config["data_spec"] else []
        except FileNotFoundError as error:
            raise UserError(f"{root}: no shards ({INDEX} is missing); make them by `prepare --to shards`") from error
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{root}: {INDEX} is damaged ({error})") from error
        files = [str(chunk["filename"]) for chunk in index["chunks"]]
        plain = all(name == Path(name).name for name in files) and all(0 < size <= MOST_PAIRS for size in sizes)
        if named != list(FORMAT) or config["data_format"] != list(FORMAT.values()) or not plain:
            raise UserError(f"{root}: its shards do not hold pairs of `prepare --to shards`")
        return index

    def _open(self, root: int) -> Any:
        """Return litdata's reader of a root, of this process."""
        if self._owner != os.getpid():  # a forked worker: threads and maps are the parent's
            self._opened, self._owner = {}, os.getpid()
        if root not in self._opened:
            self._opened[root] = streaming_dataset(self.roots[root], self.cache_dir, self.cache_size)
        return self._opened[root]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}


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
        return StreamingDataset(root, cache_dir=cache_dir, shuffle=False, max_cache_size=cache_size)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{root}: cannot be opened ({error})") from error
