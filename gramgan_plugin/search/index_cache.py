"""Cache a database's index in its folder: ``index/hnsw.faiss``, described by ``index/hnsw.json``.

Damaged bytes may crash faiss's native parser, so it only gets bytes whose SHA-256 matches the recorded one.
"""

import hashlib
import io
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gramgan_plugin.errors import UserError
from gramgan_plugin.search import hnsw
from gramgan_plugin.utils.io import parse_json, replace_file, replacing

logger = logging.getLogger("basicsr")

FOLDER = "index"
KIND = "hnsw"
FORMAT = 1  # increased when the order of rows in an index changes (`hnsw.held_out`)
MOST_BYTES = 2**16  # of the JSON; more is not read


@dataclass(frozen=True)
class IndexFacts:
    """The content of ``hnsw.json``.

    Attributes:
        kind: ``hnsw``.
        sha256: of the index's bytes.
        database: fingerprint of the database.
        faiss: its version.
        settings: the index's settings; ``effort`` is the number of candidates that a search keeps.
        recall: ``queries`` (number of held-out rows), ``at_1`` and ``at_10``.
        format: version of the index's order of rows.
    """

    kind: str
    sha256: str
    database: str
    faiss: str
    settings: Mapping[str, int]
    recall: Mapping[str, float]
    format: int = FORMAT

    def public(self) -> dict[str, Any]:
        """Return what users see: ``kind``, ``faiss``, ``settings`` and ``recall``."""
        return {name: value for name, value in asdict(self).items() if name not in ("sha256", "database", "format")}


def open_index(path: Path, fingerprint: str, rows: Tensor) -> tuple[Any, dict[str, Any]]:
    """Read the cached index if it is intact and fits the database; otherwise make one and cache it.

    Args:
        path: the database's folder.
        fingerprint: of the database.
        rows: (N, D) float32 on a CPU, finite.

    Returns:
        The faiss index, and the result of `IndexFacts.public`.
    """
    kept = _read(path, fingerprint, (len(rows), rows.shape[1]))
    if kept is not None:
        return kept[0], kept[1].public()
    start = time.monotonic()
    logger.info("%s: making the %s index over %d patches", path, KIND, len(rows))
    index, settings, recall = hnsw.make_index(rows)
    took = time.monotonic() - start
    logger.info(
        "%s: made in %.1f s; it finds the nearest of %.1f %% of held-out patches", path, took, 100 * recall["at_1"]
    )
    facts = {"kind": KIND, "faiss": hnsw.faiss_library().__version__, "settings": settings, "recall": recall}
    _keep(path, index, {**facts, "database": fingerprint})
    return index, facts


def read_facts(path: Path) -> IndexFacts | None:
    """Return the content of ``hnsw.json``; None if it is missing or, with a warning, damaged."""
    file = path / FOLDER / f"{KIND}.json"
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        facts = IndexFacts(**parse_json(data)) if len(data) <= MOST_BYTES else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        facts = None
    if facts is not None and _is_sound(facts):
        return facts
    logger.warning("%s: damaged; ignored", file)
    return None


def _keep(path: Path, index: Any, facts: Mapping[str, Any]) -> None:
    """Write an index and its description; if the folder cannot be written, warn and continue."""
    folder = path / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        whole = IndexFacts(sha256=_write(folder / f"{KIND}.faiss", index), **facts)
        replace_file(folder / f"{KIND}.json", (json.dumps(asdict(whole), indent=2) + "\n").encode("ascii"))
    except (OSError, UserError, RuntimeError) as error:  # faiss turns the first into the others
        logger.warning("%s: the search index is not kept, and will be made again at the next start (%s)", path, error)


def _write(file: Path, index: Any) -> str:
    """Write an index without holding its bytes in memory; return their SHA-256."""
    faiss = hnsw.faiss_library()
    digest = hashlib.sha256()
    with replacing(file, synced=False, shared=True) as stream:  # each process of a distributed run may write

        def write(data: bytes) -> None:
            stream.write(data)
            digest.update(data)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
    return digest.hexdigest()


def _read(path: Path, fingerprint: str, shape: tuple[int, int]) -> tuple[Any, IndexFacts] | None:
    """Return the cached index; None if it is missing or, with a warning, unusable."""
    facts = read_facts(path)
    if facts is None:
        return None
    file = path / FOLDER / f"{KIND}.faiss"
    try:
        return _parsed(file, facts, fingerprint, shape), facts
    except _UnusableError as error:
        logger.warning("%s: %s; the search index is made again", file, error)
        return None


class _UnusableError(Exception):
    """The reason why an index cannot be used."""


def _parsed(file: Path, facts: IndexFacts, fingerprint: str, shape: tuple[int, int]) -> Any:
    faiss = hnsw.faiss_library()
    if facts.format != FORMAT:
        raise _UnusableError(f"made by another version of gramgan-plugin (format {facts.format}, this is {FORMAT})")
    if facts.database != fingerprint:
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
    except Exception as error:  # of many types
        raise _UnusableError(f"cannot be opened ({type(error).__name__})") from error
    if (index.ntotal, index.d) != shape:
        raise _UnusableError(f"holds {index.ntotal} rows of {index.d} numbers, not {shape[0]} of {shape[1]}")
    return index


def _is_sound(facts: IndexFacts) -> bool:
    texts = (facts.kind, facts.sha256, facts.database, facts.faiss)
    if not all(isinstance(text, str) for text in texts) or facts.kind != KIND:
        return False
    if not isinstance(facts.settings, dict) or not isinstance(facts.recall, dict):
        return False
    effort = facts.settings.get("effort")
    numbers = [*facts.settings.values(), *facts.recall.values()]
    sound = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    return sound and isinstance(effort, int) and 1 <= effort < 2**31
