"""What an LMDB held when it was prepared or verified: ``manifest.json`` in its folder, which other readers ignore."""

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

    It does not depend on the order in which the images come, nor on where in the file they lie; two images that
    change places under their keys change it. It detects corruption, not tampering. Several threads may update one.

    Args:
        state: of an earlier digest that this one continues.

    Raises:
        ValueError: if ``state`` is none.

    Example:
        >>> one, two = Digest(), Digest()
        >>> one.update("a", b"1")
        >>> two.update("b", b"2")
        >>> two.update("a", b"1")
        >>> one = Digest(one.state())
        >>> one.update("b", b"2")
        >>> one.hexdigest() == two.hexdigest()
        True
    """

    def __init__(self, state: str | None = None) -> None:
        if state is not None and not SHA256.fullmatch(state):
            raise ValueError(f"state: expected 64 hexadecimal digits, got {state!r}")
        self._sum = 0 if state is None else int(state, 16)
        self._lock = threading.Lock()

    def update(self, key: str, data: bytes) -> None:
        """Add one image; each key once. Bytes of a key that are no UTF-8 are those of ``surrogateescape``."""
        name = key.encode("utf-8", "surrogateescape")
        one = hashlib.sha256(b"%d\0%b\0" % (len(name), name))
        one.update(data)
        with self._lock:
            self._sum = (self._sum + int.from_bytes(one.digest(), "big")) % 2**256

    def state(self) -> str:
        """Return what a later digest can continue, in 64 hexadecimal digits."""
        return f"{self._sum:064x}"

    def hexdigest(self) -> str:
        """Return the fingerprint of what was added so far, in 64 hexadecimal digits."""
        return self.state()


def write_manifest(lmdb_path: Path, content: str, **facts: Any) -> None:
    """Record what a complete, closed LMDB holds.

    Args:
        lmdb_path: its folder, with ``meta_info.txt``.
        content: of ``Digest.hexdigest``.
        **facts: whatever else is worth knowing, in types that JSON has.

    Raises:
        UserError: if it cannot be written.
        ValueError: if a fact has the name of something that is recorded anyway, or ``content`` is no fingerprint.
    """
    record = {"format": FORMAT, "made_by": f"gramgan-plugin {__version__}", "content": content, **measured(lmdb_path)}
    taken = facts.keys() & record.keys()
    if taken or not SHA256.fullmatch(content):
        raise ValueError(f"{sorted(taken) or content}: not to be given")
    text = json.dumps({**record, **facts}, indent=2, allow_nan=False) + "\n"
    replace_file(lmdb_path / MANIFEST, text.encode("ascii"), synced=True)
    sync(lmdb_path)


def read_manifest(lmdb_path: Path) -> dict[str, Any] | None:
    """Return what was recorded of an LMDB; None if nothing was.

    Raises:
        UserError: if the manifest is damaged, or was written by a newer version.
    """
    path = lmdb_path / MANIFEST
    if not path.is_file():  # a device or pipe of that name is not waited for
        return None
    record = read_record(
        path, FORMAT, _damaged, f"update it, or delete that file and run `basicsr prepare verify {lmdb_path}`"
    )
    for names, fits, what in ((COUNTS, is_count, "number"), (DIGESTS, _is_sha256, "SHA-256")):
        for name in names:
            if not fits(record.get(name)):
                raise _damaged(path, f"'{name}' is no {what}")
    return record


def check_manifest(lmdb_path: Path) -> None:
    """Refuse an LMDB that is no longer what its manifest says; one without a manifest is accepted.

    Only the list of keys and the first pages are checked, so this takes milliseconds. What it cannot see is data
    overwritten behind LMDB's back; ``basicsr prepare verify`` reads all of it.

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
    """Return how an LMDB differs from what was recorded of it, in words, or None; no image is read.

    Raises:
        lmdb.Error: if it cannot be opened.
    """
    now = measured(lmdb_path)
    for name, words in _DIFFERS.items():
        if now[name] != record[name]:
            return words.format(now=now[name], was=record[name])
    return None


def measured(lmdb_path: Path) -> dict[str, Any]:
    """Return what a manifest records of an LMDB besides its content: extent, and SHA-256 of its list of keys."""
    path = lmdb_path / META_INFO
    with file_errors(path):
        return {**extent(lmdb_path), "meta_info": file_sha256(path)}


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); delete it and run `basicsr prepare verify {path.parent}`")
