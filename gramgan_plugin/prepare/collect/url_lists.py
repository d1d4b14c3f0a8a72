"""Read lists of photos to download: one URL a line, or columns url, source and licence."""

import csv
from pathlib import Path
from typing import NamedTuple

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.download.addresses import url_problem

SUFFIXES = frozenset((".txt", ".csv", ".tsv", ".urls"))
LARGEST = 256 * 2**20  # bytes of a list
COLUMNS = {"url": "url", "source": "source", "licence": "licence", "license": "licence"}


class Listed(NamedTuple):
    """A line of a list."""

    url: str
    source: str = ""
    licence: str = ""


def read_list(path: Path) -> tuple[list[Listed], list[tuple[str, str]]]:
    """Return the URLs of a list with their source and licence; a repeated URL counts once.

    Empty lines and lines that start with ``#`` are skipped. If the first other line is a header, lines have columns,
    separated by commas or tabs: ``url``, optionally ``source`` and ``licence``; others are ignored.

    Returns:
        The URLs, and place and problem of each line without a valid http or https URL.

    Raises:
        UserError: if the file is not text, or has no URL.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: above {LARGEST >> 20} MiB, too large for a list of URLs; split it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8; a list has one URL a line") from error
    lines = [
        (number, line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    listed: dict[str, Listed] = {}
    problems = []
    columns = _columns(lines[0][1]) if lines else None
    for number, line in lines[columns is not None :]:
        entry = Listed(line.strip()) if columns is None else _from_columns(line, *columns)
        problem = url_problem(entry.url)
        if problem is None:
            listed.setdefault(entry.url, entry)
        else:
            problems.append((f"{path}, line {number}", problem))
    if not listed:
        first = f"; {problems[0][0]}: {problems[0][1]}" if problems else ""
        raise UserError(f"{path}: no URL in it{first}")
    return list(listed.values()), problems


def _columns(line: str) -> tuple[str, dict[str, int]] | None:
    """Return the separator and the positions of the columns, if the line is a header."""
    separator = "\t" if "\t" in line else ","
    titles = [title.strip().lower() for title in _cells(line, separator)]
    if "url" not in titles:
        return None
    return separator, {COLUMNS[title]: place for place, title in enumerate(titles) if title in COLUMNS}


def _from_columns(line: str, separator: str, columns: dict[str, int]) -> Listed:
    cells = _cells(line, separator)
    return Listed(**{name: cells[place].strip() if place < len(cells) else "" for name, place in columns.items()})


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:  # a cell of more than 131,072 characters, which cannot be a URL
        return [line]
