"""A faiss index on the disk: ``index/KIND.faiss`` in a database's folder, and ``KIND.json`` that says what it is.

faiss parses natively, so that damaged bytes may crash it. Only bytes whose SHA-256 was written with them reach it.
"""

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.faiss_library import faiss_library
from gramgan_plugin.utils.io import parse_json, replace_file, replacing

logger = logging.getLogger("basicsr")

FOLDER = "index"
FORMAT = 1  # counts up when the order of rows in an index changes (`recall.held_out`)
MOST_BYTES = 2**16  # of the JSON; more is not read


@dataclass(frozen=True)
class IndexFacts:
    """What stands in ``KIND.json``.

    Attributes:
        kind: ``ivf`` or ``hnsw``.
        sha256: of the index's bytes.
        database: fingerprint of the database.
        faiss: its version.
        settings: the index's own; ``effort`` is how far it searches.
        recall: ``queries`` (how many held-out rows it was measured with), ``at_1`` and ``at_10``.
        format: of the index's order of rows.
    """

    kind: str
    sha256: str
    database: str
    faiss: str
    settings: Mapping[str, int]
    recall: Mapping[str, float]
    format: int = FORMAT

    def public(self) -> dict[str, Any]:
        """What users are told."""
        return {name: value for name, value in asdict(self).items() if name not in ("sha256", "database", "format")}


def write_index(path: Path, index: Any, facts: Mapping[str, Any]) -> None:
    """Write an index and what it is. Where the folder cannot be written, say so and go on without.

    Args:
        path: the database's folder.
        index: of faiss.
        facts: as ``IndexFacts`` without ``sha256``.
    """
    files = _files(path, facts["kind"])
    try:
        files[0].parent.mkdir(exist_ok=True)
        whole = IndexFacts(sha256=_write(files[0], index), **facts)
        replace_file(files[1], (json.dumps(asdict(whole), indent=2) + "\n").encode("ascii"))
    except (OSError, UserError, RuntimeError) as error:  # faiss makes the second and the third of the first
        logger.warning("%s: the search index is not kept, and will be made again at the next start (%s)", path, error)


def _write(file: Path, index: Any) -> str:
    """Write an index without holding its bytes in memory; gives their SHA-256."""
    faiss = faiss_library()
    digest = hashlib.sha256()
    with replacing(file, synced=False, shared=True) as stream:  # each process of a distributed run may write one

        def write(data: bytes) -> None:
            stream.write(data)
            digest.update(data)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
    return digest.hexdigest()


def read_index(path: Path, kind: str, database: str, rows: tuple[int, int]) -> tuple[Any, IndexFacts] | None:
    """The index that is cached, if it is whole and fits.

    Args:
        path: the database's folder.
        kind: ``ivf`` or ``hnsw``.
        database: its fingerprint.
        rows: (N, D) that the index must have.

    Returns:
        The index and its facts; None where it has to be made, with a line in the log if there is one.
    """
    facts = read_facts(path, kind)
    if facts is None:
        return None
    file = _files(path, kind)[0]
    try:
        return _open(file, facts, database, rows), facts
    except _UnusableError as error:
        logger.warning("%s: %s; the search index is made again", file, error)
        return None


def read_facts(path: Path, kind: str) -> IndexFacts | None:
    """What ``KIND.json`` says; None if there is none, or, with a line in the log, if it is damaged."""
    file = _files(path, kind)[1]
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        facts = IndexFacts(**parse_json(data)) if len(data) <= MOST_BYTES else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        facts = None
    if facts is not None and _is_sound(facts, kind):
        return facts
    logger.warning("%s: damaged; it counts for nothing", file)
    return None


class _UnusableError(Exception):
    """Why an index cannot be used."""


def _open(file: Path, facts: IndexFacts, database: str, rows: tuple[int, int]) -> Any:
    faiss = faiss_library()
    if facts.format != FORMAT:
        raise _UnusableError(f"made by another version of gramgan-plugin (format {facts.format}, this is {FORMAT})")
    if facts.database != database:
        raise _UnusableError("made for another database or another version of this one")
    if facts.faiss != faiss.__version__:
        raise _UnusableError(f"made by faiss {facts.faiss}, this is {faiss.__version__}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _UnusableError(f"cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise _UnusableError("damaged (its SHA-256 is not the one that was written with it)")
    try:
        index = faiss.read_index(faiss.PyCallbackIOReader(io.BytesIO(data).read))
    except Exception as error:  # of many kinds
        raise _UnusableError(f"cannot be opened ({type(error).__name__})") from error
    if (index.ntotal, index.d) != rows:
        raise _UnusableError(f"holds {index.ntotal} rows of {index.d} numbers, not {rows[0]} of {rows[1]}")
    return index


def _is_sound(facts: IndexFacts, kind: str) -> bool:
    texts = (facts.kind, facts.sha256, facts.database, facts.faiss)
    if not all(isinstance(text, str) for text in texts) or facts.kind != kind:
        return False
    if not isinstance(facts.settings, dict) or not isinstance(facts.recall, dict):
        return False
    effort = facts.settings.get("effort")
    numbers = [*facts.settings.values(), *facts.recall.values()]
    sound = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    return sound and isinstance(effort, int) and 1 <= effort < 2**31


def _files(path: Path, kind: str) -> tuple[Path, Path]:
    return path / FOLDER / f"{kind}.faiss", path / FOLDER / f"{kind}.json"
