"""Search by faiss, for Gram vectors of many dimensions: flat is exact, ivf and hnsw find nearly all."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.patchdb.faiss_library import faiss_library
from gramgan_plugin.patchdb.neighbours import Found, Rows, Search, measure, search_exactly
from gramgan_plugin.patchdb.recall import HeldOut, held_out
from gramgan_plugin.patchdb.torch_search import TorchSearch, centre_of

logger = logging.getLogger("basicsr")

# What share of held-out rows has to find its nearest row: an index searches as far as that takes.
TARGET = 0.99
MOST_EFFORT = 1024
LINKS = 32  # of a node of an hnsw graph
CANDIDATES = 80  # looked at to place a node of it
LISTS = 4  # an ivf index has this times sqrt(N) lists,
ROWS_OF_A_LIST = 39, 64  # with at least so many rows each on average, and learns their centres from so many each


class FaissFlat:
    """Compares each query with all rows: by faiss' expanded squares in float32 first, then the nearest by differences.

    Args:
        rows: the database; a centred copy of it is held in memory.
    """

    exact = True

    def __init__(self, rows: Rows) -> None:
        faiss = faiss_library()
        self.exactly = TorchSearch(rows)
        self.index = faiss.IndexFlatL2(rows.dimensions)
        add_rows(self.index, rows, self.exactly.centre, np.arange(rows.count))

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> Found:
        """The k nearest rows of each query.

        Args:
            queries: (M, D) on a CPU, finite.
            k: at most N.

        Returns:
            (M, k) each, see ``TorchSearch.search``.
        """
        passes = [(self._approximately, torch.float32), *self.exactly.passes()[1:]]
        return search_exactly(passes, queries, self.exactly.centre, self.exactly.rows, k)

    def _approximately(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return look_up(self.index, queries, self.exactly.centre, count)


class FaissIndex:
    """An index that looks at a part of the rows only.

    Args:
        rows: the database.
        index: of faiss; a row's number in it is its place in ``held_out(N)``'s order.
        effort: how far it searches: lists that are looked at, or candidates that are kept.
    """

    exact = False

    def __init__(self, rows: Rows, index: Any, effort: int) -> None:
        self.rows = rows
        self.centre = centre_of(rows)
        self.index = index
        self.order = torch.from_numpy(np.concatenate(held_out(rows.count)))
        set_effort(index, effort)

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> Found:
        """k near rows of each query, with their exact distances.

        Args:
            queries: (M, D), finite.
            k: at most N.

        Returns:
            (M, k) each, on the queries' device. A query of which fewer than k are found is compared with all rows.
        """
        device, queries = queries.device, queries.cpu()
        _, places = look_up(self.index, queries, self.centre, k)
        candidates = self.order[places.clamp(min=0)].masked_fill_(places < 0, -1)
        found = measure(queries, candidates, self.rows, k)
        short = (places < 0).any(dim=1)
        if short.any():
            found.squared[short], found.rows[short] = TorchSearch(self.rows).search(queries[short], k)
        return Found(found.squared.to(device), found.rows.to(device))


def make_index(rows: Rows, kind: str) -> tuple[Any, dict[str, int], dict[str, float]]:
    """Make an index, and measure its recall before the held-out rows are put into it, too.

    Args:
        rows: the database.
        kind: ``ivf`` or ``hnsw``.

    Returns:
        The index of faiss, its settings, and its recall.
    """
    faiss = faiss_library()
    dimensions, centre = rows.dimensions, centre_of(rows)
    inside, outside = held_out(rows.count)
    settings: dict[str, int] = {}
    if kind == "hnsw":
        settings = {"links": LINKS, "candidates": CANDIDATES}
        index = faiss.IndexHNSWFlat(dimensions, LINKS)
        index.hnsw.efConstruction = CANDIDATES
    else:
        lists = max(1, min(int(LISTS * rows.count**0.5), rows.count // ROWS_OF_A_LIST[0]))
        settings = {"lists": lists}
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimensions), dimensions, lists)
        index.cp.min_points_per_centroid = 1  # small databases are no reason for a warning
        sample = inside[:: max(1, len(inside) // (lists * ROWS_OF_A_LIST[1]))]
        index.train(centred(rows, centre, sample))
    add_rows(index, rows, centre, inside)
    settings["effort"], measured = _find_effort(index, rows, settings.get("lists", MOST_EFFORT))
    add_rows(index, rows, centre, outside)
    return index, settings, measured


def _find_effort(index: Any, rows: Rows, most: int) -> tuple[int, dict[str, float]]:
    """The least effort, to an eighth, that reaches ``TARGET``, and the recall it gives."""
    questions, search = HeldOut(rows), FaissIndex(rows, index, 1)

    def measured(effort: int) -> dict[str, float]:
        set_effort(index, effort)
        return questions.recall(search)

    too_little, effort, recall = 0, 1, measured(1)
    while recall["at_1"] < TARGET and effort < most:
        too_little, effort = effort, min(2 * effort, most)
        recall = measured(effort)
    while recall["at_1"] >= TARGET and effort - too_little > max(1, effort // 8):
        between = (too_little + effort) // 2
        found = measured(between)
        if found["at_1"] < TARGET:
            too_little = between
        else:
            effort, recall = between, found
    set_effort(index, effort)
    if recall["at_1"] < TARGET:
        logger.warning("The search index finds %.1f %% of nearest patches only", 100 * recall["at_1"])
    return effort, recall


def set_effort(index: Any, effort: int) -> None:
    """Set how far an ivf or hnsw index searches."""
    if hasattr(index, "nprobe"):
        index.nprobe = effort
    else:
        index.hnsw.efSearch = effort


def search_on_gpu(search: Search, device: torch.device) -> Search:
    """Move the index of a ``FaissIndex`` to a GPU; distances are still measured on the CPU."""
    faiss = faiss_library()
    assert isinstance(search, FaissIndex)
    search.index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index, search.index)
    return search


def look_up(index: Any, queries: Tensor, centre: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Search an index with (M, D) queries: squared distances and places (M, count), -1 for none."""
    faiss_library()
    distances, places = index.search((queries - centre.to(queries.dtype)).float().numpy(), count)
    return torch.from_numpy(distances), torch.from_numpy(places)


def add_rows(index: Any, rows: Rows, centre: Tensor, which: NDArray[np.int64]) -> None:
    """Put these rows into an index, block by block."""
    faiss_library()
    for top in range(0, len(which), rows.step):
        index.add(centred(rows, centre, which[top : top + rows.step]))


def centred(rows: Rows, centre: Tensor, which: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, D): rows from the centre, as faiss gets them."""
    return (rows.array[which] - centre.numpy()).astype(np.float32)
