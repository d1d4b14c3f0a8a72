"""Write an LMDB of images in BasicSR's layout; a later process can continue one that was not finished."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb

from gramgan_plugin.data.lmdb_environment import META_INFO, check_whole
from gramgan_plugin.data.lmdb_manifest import MANIFEST, Digest, check_manifest, write_manifest
from gramgan_plugin.utils.io import replacing

INITIAL_MAP_SIZE = 64 * 2**20
PROGRESS = ".progress."  # begins the keys of the records of what was put; keys of images have no dot


class LmdbWriter:
    """A writer of an LMDB of images, which enlarges its memory map when it is full.

    Each :meth:`put` is one transaction, on the disk when it returns: the images, and a record of them under a key of
    its own, from which a later writer knows what is there. :meth:`close` replaces the records by ``meta_info.txt``,
    without which the LMDB cannot be used for training.

    Args:
        path: folder, whose name ends in ``.lmdb``; created, or that of a writer that was not closed.
        map_size: initial size of the map in bytes; doubled as needed.

    Raises:
        lmdb.Error: if the folder has a damaged LMDB.
        UserError: if its file is truncated, or not what the manifest says.
        ValueError: if the records are missing or damaged.

    Attributes:
        puts: the number of puts, those of earlier writers included.
        closed: whether an earlier writer was closed, with a manifest; then there is nothing left to do.

    Example:
        >>> import tempfile
        >>> from gramgan_plugin.data.lmdb_images import LmdbImages
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = LmdbWriter(Path(folder) / "GT.lmdb")
        ...     writer.put({"000001_s001": b"data"}, {"000001_s001": (192, 192, 3)}, level=1)
        ...     writer.close()
        ...     LmdbImages(Path(folder) / "GT.lmdb").read("000001_s001")
        b'data'
    """

    def __init__(self, path: Path, map_size: int = INITIAL_MAP_SIZE) -> None:
        path.mkdir(exist_ok=True)
        self.path, self.puts = path, 0
        self.closed = (path / MANIFEST).exists()
        if self.closed:
            try:
                check_manifest(path)
            except lmdb.Error as error:  # an empty file
                raise ValueError(f"{path}: cannot be opened: {error}") from error
            return
        self._map_size = map_size
        self._environment = lmdb.open(str(path), map_size=map_size, lock=False)
        try:
            check_whole(path, self._environment)
            self.puts = sum(1 for _ in self._records())
            if self.puts == 0 and self._environment.stat()["entries"]:
                raise ValueError(f"{path}: has images, but no records of them")
        except BaseException:
            self.discard()
            raise

    def put(
        self,
        images: Mapping[str, bytes],
        shapes: Mapping[str, tuple[int, int, int]],
        level: int,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write images under their keys.

        Args:
            images: encoded images by key; ASCII keys without a dot, not written before.
            shapes: (height, width, channels) by key.
            level: PNG compression level, for ``meta_info.txt``.
            facts: what :meth:`facts` returns for this put, in JSON types.
        """
        digest, lines = Digest(), []
        for key, data in images.items():
            digest.update(key, data)
            height, width, channels = shapes[key]
            lines.append(f"{key}.png ({height},{width},{channels}) {level}")
        record = json.dumps({"content": digest.hexdigest(), "meta_info": lines, "facts": facts}).encode("ascii")
        earlier = self._record(self.puts)
        if record != earlier:
            replaced = [] if earlier is None else _keys_in(json.loads(earlier))
            self._write([*((key, None) for key in replaced), *images.items(), (_progress_key(self.puts), record)])
        self.puts += 1

    def facts(self) -> Iterator[Any]:
        """Yield the facts of each put."""
        return (record["facts"] for record in self._records(0, self.puts))

    def rewind(self, puts: int) -> None:
        """Go back: the next put replaces the one of that number, and so on.

        Args:
            puts: the number of puts that stay.
        """
        self.puts = puts

    def close(self, facts: Mapping[str, Any] | None = None) -> None:
        """Finish the LMDB: write ``meta_info.txt`` and, if ``facts`` are given, a manifest with them."""
        digest = Digest()
        with replacing(self.path / META_INFO, synced=True) as stream:
            for record in self._records(0, self.puts):
                digest.merge(record["content"])
                stream.writelines(f"{line}\n".encode("ascii") for line in record["meta_info"])
        replaced = list(self._records(self.puts))  # by a rewind, and not put again
        keys = [key for record in replaced for key in _keys_in(record)]
        self._write([(key, None) for key in (*keys, *map(_progress_key, range(self.puts + len(replaced))))])
        self.discard()
        if facts is not None:
            write_manifest(self.path, digest.hexdigest(), **facts)

    def discard(self) -> None:
        """Close the files without finishing; images that were put stay."""
        if not self.closed:
            with suppress(OSError):  # closing writes, and the disk may be full
                self._environment.close()

    def _write(self, pairs: Sequence[tuple[str, bytes | None]]) -> None:
        """Write data under keys, or delete those without, in one transaction."""
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, data in pairs:
                        if data is None:
                            transaction.delete(key.encode("ascii"))
                        else:
                            transaction.put(key.encode("ascii"), data)
                return
            except lmdb.MapFullError:  # the transaction is rolled back; try again with a larger map
                self._map_size = max(self._map_size, self._environment.info()["map_size"]) * 2
                self._environment.set_mapsize(self._map_size)

    def _record(self, number: int) -> bytes | None:
        with self._environment.begin() as transaction:
            return transaction.get(_progress_key(number).encode("ascii"))

    def _records(self, first: int = 0, end: int | None = None) -> Iterator[dict[str, Any]]:
        for number in itertools.count(first) if end is None else range(first, end):
            record = self._record(number)
            if record is None:
                return
            yield json.loads(record)


def _progress_key(number: int) -> str:
    return f"{PROGRESS}{number:09d}"


def _keys_in(record: Mapping[str, Any]) -> list[str]:
    """Return the keys of a record's images."""
    return [line.partition(".")[0] for line in record["meta_info"]]
