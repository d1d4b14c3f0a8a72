"""Files of JSON lines that outlive a kill: metrics.jsonl, starts.jsonl. Imports nothing heavy."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.json_record import parse_json


class JsonLines:
    """A file that lines are appended to, each on the disk's way as soon as it is written.

    What a killed process has left of its last line is cut off, so that every line of the file is whole.

    Args:
        path: the file; made if it is not there.

    Raises:
        UserError: if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with file_errors(path):
            _cut_off_torn_line(path)
            self.stream: IO[str] = path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line, see ``as_line``.

        Raises:
            UserError: if it cannot be written.
        """
        with file_errors(self.path):
            self.stream.write(as_line(record) + "\n")
            self.stream.flush()

    def close(self) -> None:
        """Close the file."""
        with file_errors(self.path):
            self.stream.close()


def as_line(record: Mapping[str, Any]) -> str:
    """A record as JSON, in which numbers that are none become null: JSON has no NaN and no infinity.

    >>> as_line({"iter": 3, "l_g_pix": float("nan"), "metrics": {"psnr": float("inf")}})
    '{"iter": 3, "l_g_pix": null, "metrics": {"psnr": null}}'
    """
    return json.dumps(_finite(record), allow_nan=False)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file with their line numbers; a last line that is cut short is passed over.

    Raises:
        UserError: if the file cannot be read, or any other line is no JSON object.
    """
    try:
        *whole, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate([*whole, last], start=1):
        try:
            record = parse_json(line)
        except ValueError as error:
            if number > len(whole):  # still being written, or never to be
                return
            raise UserError(f"{path}, line {number}: not a line of JSON") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: not a line of JSON with names and values")
        yield number, record


def _cut_off_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as stream:
        end = stream.seek(0, 2)
        # A line has some hundreds of bytes; more than one block back is looked at only if there is no end of line.
        place, block = end, 1 << 16
        while place > 0:
            start = max(0, place - block)
            stream.seek(start)
            found = stream.read(place - start).rfind(b"\n")
            if found >= 0:
                place = start + found + 1
                break
            place = start
        if place < end:
            stream.truncate(place)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
