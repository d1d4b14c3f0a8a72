"""Record what is committed to a data set, so that an interrupted packing can be resumed."""

import json
import os
from pathlib import Path
from typing import Any

from gramgan_plugin.utils.io import parse_json

JOURNAL = ".journal.jsonl"


class Journal:
    """A file with a line for each commit: what a rerun needs to resume after it.

    A line is synced before :meth:`append` returns. An incomplete line, left by a crash, is ignored and overwritten.

    Args:
        folder: the staging folder of the data set.

    Attributes:
        records: the records of earlier processes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     journal = Journal(Path(folder))
        ...     journal.append({"done": 3})
        ...     journal.close()
        ...     Journal(Path(folder)).records
        [{'done': 3}]
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.records, whole = _read(self.path)
        self._file = self.path.open("ab")
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)

    def append(self, record: dict[str, Any]) -> None:
        """Add a line.

        Args:
            record: plain JSON.
        """
        self._file.write(json.dumps(record).encode("ascii") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records before the first incomplete line, and the offset of their end."""
    records: list[dict[str, Any]] = []
    end = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        try:
            record = parse_json(line) if line.endswith(b"\n") else None
        except ValueError:
            record = None
        if not isinstance(record, dict):
            break
        records.append(record)
        end += len(line)
    return records, end
