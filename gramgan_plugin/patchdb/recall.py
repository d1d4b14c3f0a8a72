"""How many of the nearest rows an approximate search finds."""

import numpy as np
import torch
from numpy.typing import NDArray

from gramgan_plugin.patchdb.neighbours import Rows, Search
from gramgan_plugin.patchdb.torch_search import TorchSearch

QUERIES = 1000
NEAREST = 10
# Of each query's nearest rows, how many are looked up, since held-out ones among them don't count.
LOOKED_UP = 64
# Distances that differ by less are the same: equal rows are as good as each other.
SLACK = 1 + 1e-9


def held_out(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that an index is made of and measured with, and those it is asked for and gets later.

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


class HeldOut:
    """Questions to measure an approximate search with: rows that are not in it yet, and what is nearest to them.

    Args:
        rows: the database.
    """

    def __init__(self, rows: Rows) -> None:
        inside, outside = held_out(rows.count)
        self.queries = rows.at(torch.from_numpy(outside))
        found = TorchSearch(rows).search(self.queries, min(rows.count, LOOKED_UP))
        is_out = torch.zeros(rows.count, dtype=torch.bool)
        is_out[torch.from_numpy(outside)] = True
        distances, _ = found.squared.masked_fill(is_out[found.rows], float("inf")).sort(dim=1)
        self.nearest = min(NEAREST, len(inside))
        self.truth = distances[:, : self.nearest] * SLACK

    def recall(self, search: Search) -> dict[str, float]:
        """Measure a search that doesn't hold the rows that are held out.

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
