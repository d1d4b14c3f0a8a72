"""Approximate search by faiss, a graph of neighbours (HNSW), for many rows of many dimensions: it finds nearly all."""

import importlib
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.errors import UserError
from gramgan_plugin.search.exact import ExactSearch
from gramgan_plugin.search.neighbours import Found, Search, centre_of, in_order, squared_distances

logger = logging.getLogger("basicsr")

LINKS = 32  # of a node
CANDIDATES = 80  # compared to place a node
# What share of held-out rows has to find its nearest row: an index searches as far as that takes.
TARGET = 0.99
MOST_EFFORT = 1024
# Held-out rows, and how many of the nearest of each are compared.
QUERIES, NEAREST = 1000, 10
# The most of a held-out row's nearest rows that the exact search finds: those held out among them do not count.
FOUND = 64
# Distances that differ by less are the same: equal rows are as good as each other.
SLACK = 1 + 1e-9
# The most numbers of rows that are copied at a time.
BLOCK = 2**22


class HnswSearch:
    """An index that compares a query with a part of the rows only.

    Args:
        rows: (N, D) float32 on a CPU.
        index: of faiss; a row's number in it is its place in ``held_out(N)``'s order.
        effort: how many candidates the search keeps.
    """

    def __init__(self, rows: Tensor, index: Any, effort: int) -> None:
        self.rows = rows
        self.centre = centre_of(rows)
        self.index = index
        self.index.hnsw.efSearch = effort
        self.order = torch.from_numpy(np.concatenate(held_out(len(rows))))

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> Found:
        """Return k near rows of each query, with their exact distances.

        Args:
            queries: (M, D) on a CPU, finite.
            k: at most N.

        Returns:
            (M, k) each. A query of which fewer than k are found is compared with all rows.
        """
        faiss_library()
        centred = (queries - self.centre.to(queries.dtype)).float()
        places = torch.from_numpy(self.index.search(centred.numpy(), k)[1])
        rows = self.order[places.clamp(min=0)]
        which = torch.arange(len(rows)).repeat_interleave(k)
        found = in_order(squared_distances(queries, self.rows, which, rows.flatten()).view_as(rows), rows)
        short = (places < 0).any(dim=1)
        if short.any():
            found.squared[short], found.rows[short] = ExactSearch(self.rows).search(queries[short], k)
        return found


def make_index(rows: Tensor) -> tuple[Any, dict[str, int], dict[str, float]]:
    """Make an index, and measure its recall before the held-out rows are put into it, too.

    Args:
        rows: (N, D) float32 on a CPU, finite.

    Returns:
        The index of faiss, its settings, and its recall.
    """
    index = faiss_library().IndexHNSWFlat(rows.shape[1], LINKS)
    index.hnsw.efConstruction = CANDIDATES
    inside, outside = held_out(len(rows))
    _add_rows(index, rows, inside)
    effort, recall = _find_effort(HnswSearch(rows, index, 1), HeldOut(rows))
    _add_rows(index, rows, outside)
    return index, {"links": LINKS, "candidates": CANDIDATES, "effort": effort}, recall


def _add_rows(index: Any, rows: Tensor, which: NDArray[np.int64]) -> None:
    centre, array = centre_of(rows).numpy(), rows.numpy()
    step = max(1, BLOCK // rows.shape[1])
    for top in range(0, len(which), step):
        index.add((array[which[top : top + step]] - centre).astype(np.float32))


def _find_effort(search: HnswSearch, questions: "HeldOut") -> tuple[int, dict[str, float]]:
    """The least effort, to an eighth, that reaches ``TARGET``, and the recall it gives.

    The time of a search grows as the effort does, and the effort needed differs between databases (11 for 2,500 rows of
    136 numbers, 18 for 100,000), so that one constant for all would take half as long again.
    """

    def measured(effort: int) -> dict[str, float]:
        search.index.hnsw.efSearch = effort
        return questions.recall(search)

    too_little, effort, recall = 0, 1, measured(1)
    while recall["at_1"] < TARGET and effort < MOST_EFFORT:
        too_little, effort = effort, 2 * effort
        recall = measured(effort)
    while recall["at_1"] >= TARGET and effort - too_little > max(1, effort // 8):
        between = (too_little + effort) // 2
        found = measured(between)
        if found["at_1"] < TARGET:
            too_little = between
        else:
            effort, recall = between, found
    if recall["at_1"] < TARGET:
        logger.warning("The search index finds %.1f %% of nearest patches only", 100 * recall["at_1"])
    return effort, recall


class HeldOut:
    """Rows that are not in an index yet, to measure it with, and the distances of what is nearest to them.

    Args:
        rows: (N, D) float32 on a CPU, finite.
    """

    def __init__(self, rows: Tensor) -> None:
        inside, outside = held_out(len(rows))
        self.queries = rows[torch.from_numpy(outside)]
        found = ExactSearch(rows).search(self.queries, min(len(rows), FOUND))
        is_out = torch.zeros(len(rows), dtype=torch.bool)
        is_out[torch.from_numpy(outside)] = True
        distances, _ = found.squared.masked_fill(is_out[found.rows], float("inf")).sort(dim=1)
        self.nearest = min(NEAREST, len(inside))
        self.truth = distances[:, : self.nearest] * SLACK

    def recall(self, search: Search) -> dict[str, float]:
        """Measure a search that does not hold the rows that are held out.

        Returns:
            ``queries``, ``at_1`` (the share of queries whose nearest row comes first) and ``at_10`` (the share of the
            ten nearest rows that are among the ten found).
        """
        if not len(self.queries):
            return {"queries": 0, "at_1": 1.0, "at_10": 1.0}
        found = search.search(self.queries, self.nearest).squared
        at_1, at_10 = found[:, 0] <= self.truth[:, 0], found <= self.truth[:, -1:]
        shares = {name: float(right.double().mean()) for name, right in (("at_1", at_1), ("at_10", at_10))}
        return {"queries": len(self.queries), **shares}


def held_out(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that an index is made from and measured with, and those it is asked for and gets later.

    Args:
        count: number N of rows.

    Returns:
        Rows that are in, and rows that are out: up to ``QUERIES``, evenly spread, at most a quarter.

    Example:
        >>> held_out(6)
        (array([0, 1, 2, 4, 5]), array([3]))
    """
    step = max(4, count // QUERIES)
    out = np.arange(step - 1, count, step)[:QUERIES]
    is_in = np.ones(count, bool)
    is_in[out] = False
    return np.flatnonzero(is_in), out


def faiss_library() -> Any:
    """Return faiss, imported now, set to as many threads as torch uses: in DataLoader's workers more would hang.

    Raises:
        UserError: if it is not installed.
    """
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise UserError(f"faiss cannot be loaded ({error}); install faiss-cpu, or take the tree index") from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
