"""Read LMDBs of images in BasicSR's layout: ``data.mdb``, and ``meta_info.txt`` with a line for each key."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import lmdb

from gramgan_plugin.data.lmdb_environment import META_INFO, check_whole, open_environment
from gramgan_plugin.data.lmdb_manifest import check_manifest
from gramgan_plugin.errors import UserError

_SIDE = r"[1-9]\d{0,8}"
META_LINE = re.compile(rf"(?P<key>[^.\s]+)\.\w+ \((?P<height>{_SIDE}),(?P<width>{_SIDE}),\d+\) \d+")


class LmdbImages:
    """The images of an LMDB. Keys are read at once; each process opens the data at its first read.

    Args:
        path: the LMDB's folder.

    Raises:
        UserError: if the folder, its ``data.mdb`` or its ``meta_info.txt`` is missing, unreadable or incomplete, or
            they do not match the manifest. The message begins with the path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = [line["key"] for line in _meta_lines(path)]
        self._environment: lmdb.Environment | None = None
        self._pid = -1
        try:
            entries = check_whole(path, open_environment(path))
            check_manifest(path)
        except lmdb.Error as error:
            raise UserError(f"{path}: cannot be opened as an LMDB: {error}") from error
        if entries < len(self.keys):
            raise UserError(
                f"{path}: {META_INFO} lists {len(self.keys)} keys, data.mdb has {entries}; prepare it again"
            )

    def read(self, key: str) -> bytes:
        """Return the file's bytes under a key.

        Raises:
            UserError: if the key is missing, or the LMDB is damaged.
        """
        try:
            if self._environment is None or self._pid != os.getpid():
                self._environment, self._pid = open_environment(self.path), os.getpid()
            with self._environment.begin() as transaction:
                data = transaction.get(key.encode("ascii"))
        except lmdb.Error as error:
            raise UserError(f"{self.path}: {key} cannot be read, data.mdb is damaged: {error}") from error
        if data is None:
            raise UserError(f"{self.path}: {META_INFO} lists {key}, data.mdb does not hold it; prepare it again")
        return bytes(data)

    def disagreement(self, most: int = 10_000) -> str | None:
        """Return how ``meta_info.txt`` and ``data.mdb`` differ, in words, or None. No image is read.

        Args:
            most: maximum number of keys to check, evenly spread.
        """
        environment = open_environment(self.path)
        entries = environment.stat()["entries"]
        if len(set(self.keys)) != entries:
            return f"{META_INFO} lists {len(set(self.keys))} keys, data.mdb has {entries}"
        try:
            with environment.begin(buffers=True) as transaction:
                for key in self.keys[:: -(-len(self.keys) // most)]:
                    if transaction.get(key.encode("ascii")) is None:
                        return f"{META_INFO} lists {key}, data.mdb does not hold it"
        except lmdb.Error as error:
            return f"data.mdb is damaged: {error}"
        return None

    def names(self, wanted: Collection[str] | None = None) -> dict[str, str]:
        """Return keys by the name that GT and LQ share; in an LMDB, key and name are the same.

        Args:
            wanted: the names to return; None for all.
        """
        return {key: key for key in self.keys if wanted is None or key in wanted}

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return (height, width) by key, from ``meta_info.txt``."""
        return {line["key"]: (int(line["height"]), int(line["width"])) for line in _meta_lines(self.path)}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_environment": None, "_pid": -1}


def _meta_lines(path: Path) -> Iterator[re.Match[str]]:
    if not (path / "data.mdb").is_file():
        raise UserError(f"{path}: no such LMDB (a folder with data.mdb)")
    try:
        lines = (path / META_INFO).read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: has no {META_INFO}, which lists its keys; prepare it again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path / META_INFO}: cannot be read: {error}") from error
    if not lines:
        raise UserError(f"{path / META_INFO}: lists no images")
    for number, line in enumerate(lines, start=1):
        match = META_LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(f"{path / META_INFO}: line {number}: expected 'KEY.png (height,width,channels) LEVEL'")
        yield match
