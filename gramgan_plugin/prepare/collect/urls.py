"""Read lists of URLs, and download them into one folder, a few at a time."""

import csv
import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.utils.download.addresses import url_problem
from gramgan_plugin.utils.download.limits import Budget, Network
from gramgan_plugin.utils.download.transfer import DownloadError, download
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.threads import in_order

SUFFIXES = frozenset((".txt", ".csv", ".tsv", ".urls"))
LARGEST = 256 * 2**20  # bytes of a list
COLUMNS = {"url": "url", "source": "source", "licence": "licence", "license": "licence"}
AHEAD = 16  # a slow download does not block the next ones


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


def file_of(folder: Path, url: str) -> Path:
    """Return the file for a URL's content; its name is not taken from the URL."""
    return folder / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def fetch(
    urls: Sequence[str], folder: Path, network: Network, connections: int, progress: bool = True, stop: bool = False
) -> dict[str, str]:
    """Download the URLs that the folder does not have yet.

    Args:
        urls: http or https URLs.
        folder: has one file for each URL, see :func:`file_of`.
        network: limits for downloads.
        connections: number of simultaneous downloads.
        progress: report on stderr.
        stop: stop at the first failure.

    Returns:
        The reason of each failure, by URL.

    Raises:
        UserError: if the disk cannot be written.
    """
    missing = [url for url in urls if not file_of(folder, url).is_file()]
    failed: dict[str, str] = {}
    if not missing:
        return failed
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        budget = Budget(network.max_total - sum(path.stat().st_size for path in folder.iterdir()))

    def fetch_one(url: str) -> str | None:
        try:
            download(url, file_of(folder, url), network, budget)
        except DownloadError as error:
            return str(error)
        return None

    ahead, end = AHEAD * connections, network.stop.set  # Ctrl-C ends running transfers
    with closing(in_order(fetch_one, missing, connections, ahead, end)) as results:
        for _ in tracked(missing, "download", progress):
            url, reason = next(results)
            if reason is not None:
                failed[url] = reason
                if stop:
                    break
    network.stop.clear()
    return failed


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
