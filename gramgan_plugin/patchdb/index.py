"""Which search a database gets on a CPU, and making and opening it."""

import logging
import time
from typing import Any

import numpy as np

from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.faiss_library import faiss_library
from gramgan_plugin.patchdb.index_cache import read_facts, read_index, write_index
from gramgan_plugin.patchdb.neighbours import Rows, Search
from gramgan_plugin.patchdb.store import Store

logger = logging.getLogger("basicsr")

KINDS = ("auto", "kdtree", "flat", "ivf", "hnsw")
CACHED = ("ivf", "hnsw")  # those that take long to make
# Up to how many dimensions a k-d tree is the fastest search, and from how many rows on part of them are looked at only.
TREE_DIMENSIONS = 8
FEW_ROWS = 2_000
# Rows from which on making a search takes long enough to say so.
MANY_ROWS = 1_000_000


def kind_of_search(kind: str, count: int, dimensions: int) -> str:
    """What ``auto`` stands for.

    Args:
        kind: one of ``KINDS``.
        count: number of rows.
        dimensions: of a row.

    Raises:
        ValueError: for an unknown kind.

    Example:
        >>> kind_of_search("auto", 200_000, 6), kind_of_search("auto", 200_000, 136)
        ('kdtree', 'hnsw')
    """
    if kind not in KINDS:
        raise ValueError(f"index: expected one of {', '.join(KINDS)}, got {kind!r}")
    if kind != "auto":
        return kind
    if dimensions <= TREE_DIMENSIONS:
        return "kdtree"
    return "flat" if count <= FEW_ROWS else "hnsw"


def make_search(store: Store, kind: str) -> Search:
    """A search on the CPU; an index that takes long to make is read from the database's folder, or kept there.

    Args:
        store: the database.
        kind: one of ``KINDS``.

    Raises:
        UserError: if Gram vectors are not finite.
    """
    from gramgan_plugin.patchdb.faiss_index import FaissFlat, FaissIndex
    from gramgan_plugin.patchdb.kdtree import TreeSearch

    rows = Rows(store.grams)
    check_finite(store)
    kind = kind_of_search(kind, rows.count, rows.dimensions)
    if kind in CACHED:
        index, facts = _cached_index(store, rows, kind)
        return FaissIndex(rows, index, facts["settings"]["effort"])
    start = time.monotonic()
    search: Search = TreeSearch(rows) if kind == "kdtree" else FaissFlat(rows)
    if rows.count >= MANY_ROWS:
        logger.info("%s: %s over %d patches made in %.1f s", store.path, kind, rows.count, time.monotonic() - start)
    return search


def build_index(store: Store, kind: str = "auto") -> dict[str, Any]:
    """Make the index that a search will use, unless it is cached and fits; a k-d tree and flat need none.

    Args:
        store: the database.
        kind: one of ``KINDS``.

    Returns:
        ``kind``, and for an index of faiss ``faiss`` (its version), ``settings`` and ``recall`` (``queries``, ``at_1``,
        ``at_10``).

    Raises:
        UserError: if Gram vectors are not finite.
    """
    rows = Rows(store.grams)
    kind = kind_of_search(kind, rows.count, rows.dimensions)
    if kind not in CACHED:
        return {"kind": kind}
    check_finite(store)
    return _cached_index(store, rows, kind)[1]


def index_facts(store: Store) -> list[dict[str, Any]]:
    """What ``build_index`` gave for each cached index that was made for this very database."""
    found = [read_facts(store.path, kind) for kind in CACHED]
    return [facts.public() for facts in found if facts is not None and facts.database == store.fingerprint]


def check_finite(store: Store) -> None:
    """Refuse Gram vectors that are no numbers: no search takes them.

    Raises:
        UserError: if there are any.
    """
    step = Rows(store.grams).step
    for top in range(0, store.count, step):
        if not np.isfinite(store.grams[top : top + step]).all():
            raise UserError(
                f"{store.path / 'grams.npy'}: damaged (not all numbers are finite); build the database again"
            )


def _cached_index(store: Store, rows: Rows, kind: str) -> tuple[Any, dict[str, Any]]:
    from gramgan_plugin.patchdb.faiss_index import make_index

    found = read_index(store.path, kind, store.fingerprint, (rows.count, rows.dimensions))
    if found is not None:
        return found[0], found[1].public()
    start = time.monotonic()
    logger.info("%s: making the %s index over %d patches", store.path, kind, rows.count)
    index, settings, recall = make_index(rows, kind)
    logger.info(
        "%s: made in %.1f s; it finds the nearest of %.1f %% of held-out patches",
        store.path,
        time.monotonic() - start,
        100 * recall["at_1"],
    )
    facts = {"kind": kind, "faiss": faiss_library().__version__, "settings": settings, "recall": recall}
    write_index(store.path, index, {**facts, "database": store.fingerprint})
    return index, facts
