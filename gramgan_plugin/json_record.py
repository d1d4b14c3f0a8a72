"""Records in JSON that describe other files, read as what they are: data from outside. Imports nothing heavy."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from gramgan_plugin.errors import UserError, file_errors

MOST_BYTES = 2**20  # of a record; more is not read
SHA256 = re.compile(r"[0-9a-f]{64}")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is none, or nested so deeply that it cannot be parsed.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_record(path: Path, newest: int, damaged: Callable[[Path, str], UserError], if_newer: str) -> dict[str, Any]:
    """Read a JSON object with a format version.

    Args:
        path: the file.
        newest: the highest format that is known.
        damaged: makes the error for a file and what is wrong with it.
        if_newer: what to do about a higher one, the end of a sentence.

    Raises:
        UserError: if it cannot be read, is damaged, or of a newer format. Names the file.
    """
    with file_errors(path), path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        record = parse_json(data) if len(data) <= MOST_BYTES else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise damaged(path, "is no record in JSON")
    version = record.get("format")
    if not is_count(version):
        raise damaged(path, "'format' is no number")
    if version > newest:
        raise UserError(f"{path}: written by a newer gramgan-plugin (format {version}, known is {newest}); {if_newer}")
    return record


def is_count(value: Any) -> TypeGuard[int]:
    """Is this a whole number from 0 on?

    >>> [is_count(value) for value in (0, 3, -1, 2.0, True, None)]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
