"""Record what an LMDB holds in ``manifest.json`` beside its data, and check it later. Other readers ignore the file."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from gramgan_plugin.data.lmdb_environment import META_INFO, extent
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.utils.io import SHA256, file_sha256, is_count, read_record, replace_file, sync
from gramgan_plugin.version import __version__

MANIFEST = "manifest.json"
FORMAT = 1
COUNTS = ("entries", "bytes", "transactions")
DIGESTS = ("content", "meta_info")
_DIFFERS = {
    "entries": "{now} images, were {was}",
    "meta_info": f"{META_INFO} is not the same",
    "bytes": "{now} bytes, were {was}",
    "transactions": "written to since",
}


class Digest:
    """The content fingerprint of an LMDB: the sum, modulo 2**256, of the SHA-256 of each key with its data.

    It depends neither on the order of the images nor on their place in the file; swapping two images changes it. It
    detects corruption, not tampering. Several threads may update one digest.

    Example:
        >>> one, two = Digest(), Digest()
        >>> one.update("a", b"1")
        >>> two.update("b", b"2")
        >>> two.update("a", b"1")
        >>> part = Digest()
        >>> part.update("b", b"2")
        >>> one.merge(part.hexdigest())
        >>> one.hexdigest() == two.hexdigest()
        True
    """

    def __init__(self) -> None:
        self._sum = 0
        self._lock = threading.Lock()

    def update(self, key: str, data: bytes) -> None:
        """Add one image; each key once. Bytes of a key that are not UTF-8 are given as ``surrogateescape``."""
        name = key.encode("utf-8", "surrogateescape")
        one = hashlib.sha256(b"%d\0%b\0" % (len(name), name))
        one.update(data)
        with self._lock:
            self._sum = (self._sum + int.from_bytes(one.digest(), "big")) % 2**256

    def merge(self, part: str) -> None:
        """Add the images of another digest.

        Args:
            part: its ``hexdigest``.

        Raises:
            ValueError: if it is not the fingerprint of images.
        """
        if not SHA256.fullmatch(part):
            raise ValueError(f"part: expected 64 hexadecimal digits, got {part!r}")
        with self._lock:
            self._sum = (self._sum + int(part, 16)) % 2**256

    def hexdigest(self) -> str:
        """Return the fingerprint of the images added so far, 64 hexadecimal digits."""
        return f"{self._sum:064x}"


def write_manifest(lmdb_path: Path, content: str, **facts: Any) -> None:
    """Record what a complete, closed LMDB holds.

    Args:
        lmdb_path: its folder, with ``meta_info.txt``.
        content: result of ``Digest.hexdigest``.
        **facts: further facts, in JSON types.

    Raises:
        UserError: if it cannot be written.
        ValueError: if a fact has a reserved name, or ``content`` is not a fingerprint.
    """
    record = {"format": FORMAT, "made_by": f"gramgan-plugin {__version__}", "content": content, **measured(lmdb_path)}
    taken = facts.keys() & record.keys()
    if taken or not SHA256.fullmatch(content):
        raise ValueError(f"{sorted(taken) or content}: not allowed")
    text = json.dumps({**record, **facts}, indent=2, allow_nan=False) + "\n"
    replace_file(lmdb_path / MANIFEST, text.encode("ascii"), synced=True)
    sync(lmdb_path)


def read_manifest(lmdb_path: Path) -> dict[str, Any] | None:
    """Return an LMDB's manifest, or None if it has none.

    Raises:
        UserError: if the manifest is damaged, or was written by a newer version.
    """
    path = lmdb_path / MANIFEST
    if not path.is_file():  # opening a pipe of that name would block
        return None
    record = read_record(
        path, FORMAT, _damaged, f"update it, or delete that file and run `basicsr prepare verify {lmdb_path}`"
    )
    for names, fits, what in ((COUNTS, is_count, "number"), (DIGESTS, _is_sha256, "SHA-256")):
        for name in names:
            if not fits(record.get(name)):
                raise _damaged(path, f"'{name}' is not a {what}")
    return record


def check_manifest(lmdb_path: Path) -> None:
    """Refuse an LMDB that differs from its manifest; accept one without a manifest.

    Only the list of keys and the first pages are checked, so this takes milliseconds. Data overwritten directly in the
    file is not detected; ``basicsr prepare verify`` reads everything.

    Raises:
        UserError: if it was changed, or its manifest cannot be used.
        lmdb.Error: if it cannot be opened.
    """
    record = read_manifest(lmdb_path)
    change = None if record is None else changed_since(record, lmdb_path)
    if change is not None:
        raise UserError(
            f"{lmdb_path}: changed since it was prepared or verified ({change}); "
            f"run `basicsr prepare verify {lmdb_path}`"
        )


def changed_since(record: dict[str, Any], lmdb_path: Path) -> str | None:
    """Return how an LMDB differs from its manifest, in words, or None. No image is read.

    Raises:
        lmdb.Error: if it cannot be opened.
    """
    now = measured(lmdb_path)
    for name, words in _DIFFERS.items():
        if now[name] != record[name]:
            return words.format(now=now[name], was=record[name])
    return None


def measured(lmdb_path: Path) -> dict[str, Any]:
    """Return the facts of a manifest other than the content: extent, and SHA-256 of the list of keys."""
    path = lmdb_path / META_INFO
    with file_errors(path):
        return {**extent(lmdb_path), "meta_info": file_sha256(path)}


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); delete it and run `basicsr prepare verify {path.parent}`")
