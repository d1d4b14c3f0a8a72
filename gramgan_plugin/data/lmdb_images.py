"""LMDBs of PNG images in BasicSR's layout: ``data.mdb`` and a ``meta_info.txt`` with a line for each key."""

import os
import re
import weakref
from pathlib import Path

import lmdb

from gramgan_plugin.errors import UserError

META_INFO = "meta_info.txt"
META_LINE = re.compile(r"(?P<key>[^.\s]+)\.\w+ \(\d+,\d+,\d+\) \d+")
INITIAL_MAP_SIZE = 64 * 2**20

# lmdb refuses to open a path twice in one process, so the readers of a process share its environment.
# After a fork the parent's environment must not be used any more: the process id tells.
_environments: "weakref.WeakValueDictionary[str, lmdb.Environment]" = weakref.WeakValueDictionary()
_environments_pid = os.getpid()


class LmdbWriter:
    """Writes a new LMDB of images, growing its memory map whenever it is full.

    Each :meth:`put` is one transaction. Nothing is synced before :meth:`close`, so it is for folders that
    count only once complete.

    Args:
        path: folder to create; its name ends in ``.lmdb``.
        map_size: bytes of the map to begin with; doubled as needed.
    """

    def __init__(self, path: Path, map_size: int = INITIAL_MAP_SIZE) -> None:
        path.mkdir()
        self.path = path
        self._map_size = map_size
        self._environment = lmdb.open(str(path), map_size=map_size, lock=False, sync=False)
        self._meta = (path / META_INFO).open("w", encoding="ascii", newline="\n")

    def put(self, images: dict[str, bytes], shapes: dict[str, tuple[int, int, int]], level: int) -> None:
        """Write images under their keys.

        Args:
            images: PNG data by key; ASCII keys without a dot, not written before.
            shapes: (height, width, channels) by key.
            level: PNG compression level, for ``meta_info.txt``.
        """
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, data in images.items():
                        transaction.put(key.encode("ascii"), data)
                break
            except lmdb.MapFullError:  # the transaction is rolled back; a larger map, and again
                self._map_size *= 2
                self._environment.set_mapsize(self._map_size)
        for key in images:
            height, width, channels = shapes[key]
            self._meta.write(f"{key}.png ({height},{width},{channels}) {level}\n")

    def close(self) -> None:
        """Flush and close; what was put stands on the disk afterwards."""
        self._meta.close()
        try:
            self._environment.sync(True)
        finally:
            self._environment.close()

    def discard(self) -> None:
        """Close without syncing, after a failure."""
        self._environment.close()
        self._meta.close()


class LmdbImages:
    """The images of an LMDB: their keys at once, the data opened at the first read, in each process anew.

    Args:
        path: the LMDB's folder.

    Raises:
        UserError: if the folder, its ``data.mdb`` or its ``meta_info.txt`` is missing, unreadable or
            incomplete. The message begins with the path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys = _read_keys(path)
        self._environment: lmdb.Environment | None = None
        self._pid = -1
        try:
            entries = _check_whole(path, _open(path))
        except lmdb.Error as error:
            raise UserError(f"{path}: cannot be opened as an LMDB: {error}") from error
        if entries < len(self.keys):
            raise UserError(
                f"{path}: {META_INFO} lists {len(self.keys)} keys, data.mdb has {entries}; prepare it again"
            )

    def read(self, key: str) -> bytes:
        """The file's bytes under a key.

        Raises:
            UserError: if there is none, or the LMDB is damaged.
        """
        try:
            if self._environment is None or self._pid != os.getpid():
                self._environment, self._pid = _open(self.path), os.getpid()
            with self._environment.begin() as transaction:
                data = transaction.get(key.encode("ascii"))
        except lmdb.Error as error:
            raise UserError(f"{self.path}: {key} cannot be read, data.mdb is damaged: {error}") from error
        if data is None:
            raise UserError(f"{self.path}: {META_INFO} lists {key}, data.mdb does not hold it; prepare it again")
        return bytes(data)

    def disagreement(self, most: int = 10_000) -> str | None:
        """How ``meta_info.txt`` and ``data.mdb`` differ, in words, or None; no image is read.

        Args:
            most: up to so many keys are looked up, spread evenly over all.
        """
        environment = _open(self.path)
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

    def names(self) -> dict[str, str]:
        """Key by the name that GT and LQ have in common; here they are the same."""
        return {key: key for key in self.keys}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_environment": None, "_pid": -1}


def extent(path: Path) -> dict[str, int]:
    """How much an LMDB holds, from its first two pages: ``entries``, ``bytes`` in use, ``transactions`` written so far.

    Raises:
        lmdb.Error: if it is none, is damaged, or other code of this process has it open.
    """
    environment = _open(path)
    return {
        "entries": environment.stat()["entries"],
        "bytes": _bytes_in_use(environment),
        "transactions": environment.info()["last_txnid"],
    }


def _read_keys(path: Path) -> list[str]:
    if not (path / "data.mdb").is_file():
        raise UserError(f"{path}: no such LMDB (a folder with data.mdb)")
    try:
        lines = (path / META_INFO).read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: has no {META_INFO}, which lists its keys; prepare it again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path / META_INFO}: cannot be read: {error}") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        match = META_LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(f"{path / META_INFO}: line {number}: expected 'KEY.png (height,width,channels) LEVEL'")
        keys.append(match["key"])
    if not keys:
        raise UserError(f"{path / META_INFO}: lists no images")
    return keys


def _check_whole(path: Path, environment: lmdb.Environment) -> int:
    """The number of entries; a file that was cut short is refused.

    LMDB maps the file into memory, and the system kills a process that reads behind its end.
    """
    needed = _bytes_in_use(environment)
    size = (path / "data.mdb").stat().st_size
    if size < needed:
        raise UserError(f"{path / 'data.mdb'}: cut short, {size} of {needed} bytes; copy or prepare it again")
    return int(environment.stat()["entries"])


def _bytes_in_use(environment: lmdb.Environment) -> int:
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _open(path: Path) -> lmdb.Environment:
    """This process's environment for a path."""
    global _environments_pid
    if _environments_pid != os.getpid():
        for inherited in list(_environments.values()):
            inherited.close()
        _environments.clear()
        _environments_pid = os.getpid()
    name = str(path.resolve())
    environment = _environments.get(name)
    if environment is None:
        environment = lmdb.open(name, readonly=True, lock=False, readahead=False, create=False)
        _environments[name] = environment
    return environment
