"""Approximate search with faiss's HNSW graph, for many rows of many dimensions."""

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

LINKS = 32  # of a node of the graph
CANDIDATES = 80  # compared when a node is added
# The share of held-out rows whose nearest row must be found; the effort is set to reach it.
TARGET = 0.99
MOST_EFFORT = 1024
# Number of held-out rows, and of the nearest rows compared for each.
QUERIES, NEAREST = 1000, 10
# Nearest rows that the exact search returns for a held-out row: other held-out rows among them do not count.
FOUND = 24
# Distances within this factor count as equal.
SLACK = 1 + 1e-9
# Numbers copied at a time.
BLOCK = 2**22


class HnswSearch:
    """An approximate index that compares a query with only a part of the rows.

    Args:
        rows: (N, D) float32 on a CPU.
        index: a faiss index; its rows are in the order of ``held_out(N)``.
        effort: number of candidates that the search keeps.
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
            (M, k) each. If fewer than k rows are found, the query is compared with all rows.
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
    """Make an index, measure its recall with held-out rows, then add these rows.

    Args:
        rows: (N, D) float32 on a CPU, finite.

    Returns:
        The faiss index, its settings and its recall.
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
    """Return the smallest effort (within an eighth) that reaches ``TARGET``, and its recall.

    A search takes time in proportion to the effort, and databases need different efforts (11 for 2,500 rows of 136
    numbers, 18 for 100,000). With one constant for all, searches would take half as long again.
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
    """Rows that are not in an index yet, to measure its recall, and the distances to their nearest rows.

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
        """Measure the recall of a search that does not contain the held-out rows.

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
    """Split row numbers into those that an index is made from and those that are held out to measure it.

    Args:
        count: number N of rows.

    Returns:
        The rows in the index, and the held-out rows: at most ``QUERIES`` and at most a quarter, evenly spread.

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
    """Import faiss and set it to torch's number of threads: in a DataLoader's workers more threads would hang.

    Raises:
        UserError: if it is not installed.
    """
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise UserError(f"faiss cannot be loaded ({error}); install faiss-cpu, or take the tree index") from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
