"""Read and write LMDBs of images in BasicSR's layout: ``data.mdb``, and ``meta_info.txt`` with a line for each key."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb

from gramgan_plugin.data.lmdb_environment import META_INFO, check_whole, open_environment
from gramgan_plugin.data.lmdb_manifest import Digest, check_manifest, write_manifest
from gramgan_plugin.errors import UserError

_SIDE = r"[1-9]\d{0,8}"
META_LINE = re.compile(rf"(?P<key>[^.\s]+)\.\w+ \((?P<height>{_SIDE}),(?P<width>{_SIDE}),\d+\) \d+")
INITIAL_MAP_SIZE = 64 * 2**20
UNFINISHED = ".meta_info.txt.part"  # the list of keys while the LMDB is being written


class LmdbWriter:
    """A writer of a new LMDB of images, which enlarges its memory map when it is full.

    Each :meth:`put` is one transaction, on the disk when it returns. ``meta_info.txt``, without which the LMDB cannot
    be used for training, is written at :meth:`close`.

    Args:
        path: folder to create; its name ends in ``.lmdb``.
        map_size: initial size of the map in bytes; doubled as needed.
        state: result of :meth:`state`, to resume the LMDB of a writer that was not closed. Images put after that state
            have to be put again unchanged.

    Raises:
        ValueError: if the LMDB holds less than at that state.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = LmdbWriter(Path(folder) / "GT.lmdb")
        ...     writer.put({"000001_s001": b"data"}, {"000001_s001": (192, 192, 3)}, level=1)
        ...     writer.close()
        ...     LmdbImages(Path(folder) / "GT.lmdb").read("000001_s001")
        b'data'
    """

    def __init__(self, path: Path, map_size: int = INITIAL_MAP_SIZE, state: Mapping[str, Any] | None = None) -> None:
        path.mkdir(exist_ok=state is not None)
        self.path = path
        self._map_size = map_size
        self._digest = Digest(None if state is None else state["content"])
        if state is not None and not (path / UNFINISHED).exists() and (path / META_INFO).exists():
            (path / META_INFO).replace(path / UNFINISHED)  # it was closed, but the data set was not finished
        self._environment = lmdb.open(str(path), map_size=map_size, lock=False)
        self._meta = (path / UNFINISHED).open("ab")
        if state is not None and not self._reaches(state):
            self.discard()
            raise ValueError(f"{path}: holds less than was written to it")
        self._meta.truncate(0 if state is None else state["meta_info"])
        self._meta.seek(0, os.SEEK_END)

    def put(self, images: dict[str, bytes], shapes: dict[str, tuple[int, int, int]], level: int) -> None:
        """Write images under their keys.

        Args:
            images: encoded images by key; ASCII keys without a dot, not written before.
            shapes: (height, width, channels) by key.
            level: PNG compression level, for ``meta_info.txt``.
        """
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, data in images.items():
                        name = key.encode("ascii")
                        if transaction.get(name) != data:  # it may have been written before an interruption
                            transaction.put(name, data)
                break
            except lmdb.MapFullError:  # the transaction is rolled back; try again with a larger map
                self._map_size = max(self._map_size, self._environment.info()["map_size"]) * 2
                self._environment.set_mapsize(self._map_size)
        for key, data in images.items():
            self._digest.update(key, data)
            height, width, channels = shapes[key]
            self._meta.write(f"{key}.png ({height},{width},{channels}) {level}\n".encode("ascii"))
        self._meta.flush()
        os.fsync(self._meta.fileno())

    def state(self) -> dict[str, Any]:
        """Return what another writer needs to resume from here, as plain JSON."""
        return {
            "entries": self._environment.stat()["entries"],
            "meta_info": self._meta.tell(),
            "content": self._digest.state(),
        }

    def close(self, facts: Mapping[str, Any] | None = None) -> None:
        """Finish the LMDB: write ``meta_info.txt`` and, if ``facts`` are given, a manifest with them."""
        self.discard()
        (self.path / UNFINISHED).replace(self.path / META_INFO)
        if facts is not None:
            write_manifest(self.path, self._digest.hexdigest(), **facts)

    def discard(self) -> None:
        """Close the files without finishing; images that were put stay."""
        self._environment.close()
        self._meta.close()

    def _reaches(self, state: Mapping[str, Any]) -> bool:
        return bool(self._environment.stat()["entries"] >= state["entries"] and self._meta.tell() >= state["meta_info"])


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
