"""Record each photo's measurements at once, so that no rerun repeats them."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.collect.criteria import Measured
from gramgan_plugin.utils.io import JsonLines, read_lines

NAME = "measured.jsonl"
# Version of the measures; photos measured with another version are measured again.
VERSION = 1
_FIELDS = {field.name for field in fields(Measured)}


class MeasuredPhotos:
    """The measured photos by key, and the archives that were read completely.

    Args:
        folder: the folder of the file.

    Raises:
        UserError: if it is damaged or cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.photos: dict[str, Measured] = {}
        self.archives: dict[str, tuple[list[str], list[tuple[str, str]]]] = {}  # members, refused ones with reasons
        path = folder / NAME
        rows = [row for _, row in read_lines(path)] if path.exists() else []
        if rows and rows[0].get("version") != VERSION:
            path.unlink()
            rows = []
        try:
            for row in rows[1:]:
                self._take(row)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged; delete it, and all photos are measured again") from error
        self._lines = JsonLines(path)
        if not rows:
            self._lines.append({"version": VERSION})

    def add(self, key: str, photo: Measured) -> None:
        """Record a photo."""
        self._lines.append({"key": key, **as_numbers(photo)})
        self.photos[key] = photo

    def forget(self, key: str) -> None:
        """Remove a photo whose content has changed: the next run measures it again."""
        self._lines.append({"key": key, "forgotten": True})
        self.photos.pop(key, None)

    def end_archive(self, key: str, members: Sequence[str], refused: Sequence[tuple[str, str]]) -> None:
        """Record that an archive was read completely."""
        self._lines.append({"archive": key, "members": list(members), "refused": list(refused)})
        self.archives[key] = (list(members), list(refused))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _take(self, row: dict[str, Any]) -> None:
        if "archive" in row:
            self.archives[row["archive"]] = (row["members"], [(name, reason) for name, reason in row["refused"]])
        elif row.get("forgotten"):
            self.photos.pop(row["key"], None)
        else:
            values = {name: value for name, value in row.items() if name in _FIELDS}
            self.photos[row["key"]] = Measured(**{**values, "hash64": int(values["hash64"], 16)})


def as_numbers(photo: Measured) -> dict[str, Any]:
    """Return a photo's measurements in JSON types; the hash in hex, since JSON numbers have no 64 bits."""
    return {**asdict(photo), "hash64": f"{photo.hash64:016x}"}
