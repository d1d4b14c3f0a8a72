"""Write the results as data: ``collected.jsonl`` for all photos, ``sources.csv`` for the kept ones."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from gramgan_plugin.prepare.collect.criteria import Measured, Verdict
from gramgan_plugin.prepare.collect.measured_photos import as_numbers
from gramgan_plugin.utils.io import as_line, replacing
from gramgan_plugin.utils.text import spreadsheet_cell

COLLECTED, SOURCES = "collected.jsonl", "sources.csv"
COLUMNS = ("photo", "from", "url", "source", "licence", "sha256")


class Result:
    """The result of one photo.

    Attributes:
        name: its name in reports.
        url, source, licence: its origin.
        verdict: whether it is kept.
        photo: its measurements; None if it was not available.
        kept_as: its name in ``DIR/photos``; None if it is dropped.
    """

    __slots__ = ("kept_as", "licence", "name", "photo", "source", "url", "verdict")

    def __init__(
        self,
        name: str,
        verdict: Verdict,
        photo: Measured | None = None,
        url: str = "",
        source: str = "",
        licence: str = "",
    ) -> None:
        self.name, self.verdict, self.photo = name, verdict, photo
        self.url, self.source, self.licence = url, source, licence
        self.kept_as: str | None = None


def write_records(folder: Path, results: Iterable[Result]) -> None:
    """Write both files.

    Raises:
        UserError: if they cannot be written.
    """
    with _replacing_text(folder / COLLECTED) as lines, _replacing_text(folder / SOURCES) as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(COLUMNS)
        for result in results:
            lines.write(as_line(_as_record(result)) + "\n")
            if result.kept_as is not None and result.photo is not None:
                cells = (result.kept_as, result.name, result.url, result.source, result.licence, result.photo.sha256)
                rows.writerow([spreadsheet_cell(text) for text in cells])


def _as_record(result: Result) -> dict[str, object]:
    verdict = result.verdict
    return {
        "from": result.name,
        "url": result.url or None,
        "source": result.source,
        "licence": result.licence,
        "result": verdict.reason or "kept",
        "detail": verdict.detail,
        "photo": result.kept_as,
        **({} if result.photo is None else as_numbers(result.photo)),
    }


@contextmanager
def _replacing_text(path: Path) -> Iterator[TextIO]:
    with replacing(path, synced=True) as stream:
        # Names that are invalid in the system's encoding are escaped.
        text = TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="")
        yield text
        text.detach()
