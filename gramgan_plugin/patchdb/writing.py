"""Write the files of a patch database block by block; ``making.placing`` puts them in place."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.patchdb.database_manifest import (
    ARRAYS,
    FORMAT,
    MANIFEST,
    SOURCES,
    Definition,
    array_shapes,
    fingerprint,
    manifest_bytes,
)
from gramgan_plugin.patchdb.moments import gram_rows, moments
from gramgan_plugin.utils.io import as_line
from gramgan_plugin.version import __version__

ROWS_AT_ONCE = 65536


class StoreWriter:
    """A writer of a database with a known number of patches, used in a ``with`` block.

    Args:
        folder: an existing, empty folder.
        definition: what a patch is.
        count: number N of patches, at least 1.

    Example:
        >>> import tempfile
        >>> from gramgan_plugin.patchdb.store import open_store
        >>> patches = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(Path(folder), Definition(patch_size=4), count=5) as writer:
        ...         writer.add(patches)
        ...         _ = writer.finish()
        ...     open_store(Path(folder), verify=True).grams.shape
        (5, 6)
    """

    def __init__(self, folder: Path, definition: Definition, count: int) -> None:
        if count < 1:
            raise ValueError(f"a database of {count} patches cannot be written")
        self.folder = folder
        self.definition = definition
        self.count = count
        self.shapes = array_shapes(definition, count)
        self._rows = 0
        self._files: dict[str, _HashedFile] = {name: _HashedFile(folder / name) for name in (*ARRAYS, SOURCES)}
        for name, (dtype, _) in ARRAYS.items():
            header = {
                "descr": np.dtype(dtype).newbyteorder("<").str,
                "fortran_order": False,
                "shape": self.shapes[name],
            }
            np.lib.format.write_array_header_1_0(self._files[name], header)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.stream.close()

    def add(
        self,
        patches: NDArray[np.uint8],
        origins: NDArray[np.int32] | None = None,
        ranks: NDArray[np.int32] | None = None,
        grams: NDArray[np.float32] | None = None,
    ) -> None:
        """Write the next rows.

        Args:
            patches: (n, s, s, C), with their margins.
            origins: (n, 4); None for photo 0 and consecutive rows.
            ranks: (n,); None for consecutive numbers.
            grams: (n, D); None to compute them, which is possible for pixels only.
        """
        count = len(patches)
        numbers = np.arange(self._rows, self._rows + count, dtype=np.int32)
        if origins is None:
            origins = np.stack([0 * numbers, numbers, 0 * numbers, 0 * numbers], axis=1)
        if grams is None:
            if self.definition.features is not None:
                raise ValueError("grams: must be given for features")
            grams = gram_rows(moments(patches), self.definition)
        rows: dict[str, NDArray[Any]] = {"grams.npy": grams, "patches.npy": patches, "origins.npy": origins}
        rows["ranks.npy"] = numbers if ranks is None else ranks
        for name, array in rows.items():
            dtype = ARRAYS[name][0]
            if array.dtype != dtype or array.shape != (count, *self.shapes[name][1:]):
                raise ValueError(
                    f"{name}: {array.dtype} of {array.shape} is not a block of {dtype} of {self.shapes[name]}"
                )
            self._files[name].write(np.ascontiguousarray(array).data)
        self._rows += count

    def add_source(self, record: Mapping[str, Any]) -> None:
        """Write the record of the next photo."""
        self._files[SOURCES].write((as_line(record) + "\n").encode("ascii"))

    def finish(
        self,
        variants: Sequence[str] = ("original",),
        options: Mapping[str, Any] | None = None,
        counts: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Close the files and write the manifest, without which they cannot be used.

        Args:
            variants: the variants that patches were cut from.
            options: the settings of the choice.
            counts: numbers of examined and left-out patches.

        Returns:
            The manifest.
        """
        if self._rows != self.count:
            raise ValueError(f"{self._rows} patches were written, not {self.count}")
        for file in self._files.values():
            file.stream.close()
        hashes = {name: self._files[name].digest.hexdigest() for name in ARRAYS}
        manifest = {
            "format": FORMAT,
            "made_by": f"gramgan-plugin {__version__}",
            **self.definition.as_data(),
            "count": self.count,
            "variants": list(variants),
            "arrays": {
                name: {"dtype": ARRAYS[name][0], "shape": list(self.shapes[name]), "sha256": hashes[name]}
                for name in ARRAYS
            },
            "sources": {
                "file": SOURCES,
                "bytes": self._files[SOURCES].length,
                "sha256": self._files[SOURCES].digest.hexdigest(),
            },
            "fingerprint": fingerprint(self.definition, hashes),
            "options": dict(options or {}),
            "counts": dict(counts or {}),
        }
        manifest = json.loads(json.dumps(manifest, allow_nan=False))  # as a reader will get it
        (self.folder / MANIFEST).write_bytes(manifest_bytes(manifest))
        return manifest


def write_store(
    folder: Path,
    patches: Iterable[NDArray[np.uint8]],
    count: int,
    definition: Definition,
    grams: Iterable[NDArray[np.float32]] | None = None,
) -> dict[str, Any]:
    """Write patches without known origins as a database; Gram vectors are computed if not given.

    Args:
        folder: created if it is missing; its files are overwritten.
        patches: blocks of (n, s, s, C), with their margins.
        count: number of patches of all blocks.
        definition: what a patch is.
        grams: blocks of (n, D) that match the blocks of patches; None to compute them.

    Returns:
        The manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with StoreWriter(folder, definition, count) as writer:
        if grams is None:
            for block in patches:
                writer.add(block)
        else:
            for block, rows in zip(patches, grams, strict=True):
                writer.add(block, grams=rows)
        writer.add_source({"name": "none", "width": 0, "height": 0, "sha256": "0" * 64})
        return writer.finish()


class _HashedFile:
    """A file being written, and the hash of its content."""

    def __init__(self, path: Path) -> None:
        self.stream: IO[bytes] = path.open("wb")
        self.digest = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes | memoryview) -> int:
        self.stream.write(data)
        self.digest.update(data)
        self.length += memoryview(data).nbytes
        return memoryview(data).nbytes
