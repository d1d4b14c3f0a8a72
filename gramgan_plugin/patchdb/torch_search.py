"""Exact search on a GPU, block by block; nothing of the size queries x database is ever held."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gramgan_plugin.functional.precision import autocast_off
from gramgan_plugin.patchdb.neighbours import Approximate, Found, Rows, search_exactly

# Queries and rows that are compared at a time: 512 MiB of distances on a GPU, on a CPU what stays in its caches.
GPU_BLOCK, CPU_BLOCK = (2**10, 2**17), (2**6, 2**15)
# Distances of which only the smallest is looked at in the first round; divides the blocks' rows.
GROUP = 2**7


class TorchSearch:
    """Compares each query with all rows: by a matrix product first, then the nearest ones by differences.

    Args:
        rows: the database, on the device to search on. A GPU holds a second, centred copy of it.

    Example:
        >>> import numpy as np
        >>> search = TorchSearch(Rows(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]], np.float32)))
        >>> found = search.search(torch.zeros(1, 2), k=3)
        >>> found.rows.tolist(), found.squared.tolist()
        ([[0, 2, 1]], [[0.0, 0.0, 25.0]])
    """

    exact = True

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.centre = centre_of(rows)
        some_queries, some_rows = CPU_BLOCK if rows.device.type == "cpu" else GPU_BLOCK
        if rows.device.type == "cpu" and rows.step < some_rows:
            some_rows = max(GROUP, rows.step // GROUP * GROUP)
        self.block = some_queries, some_rows
        # A GPU has room for the centred rows; a CPU makes them block by block from the file.
        tops = range(0, rows.count, self.block[1]) if rows.device.type != "cpu" else ()
        self.held = {top: self._centred(top, torch.float32) for top in tops}

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> Found:
        """The k nearest rows of each query.

        Args:
            queries: (M, D) on the database's device, finite.
            k: at most N.

        Returns:
            (M, k) each: what comparing each query with all rows in float64 gives. Of equally near ones the lowest
            index comes first, unless there are more than eight too many.
        """
        # A training run may have allowed matrix products in TF32 or bf16, which are too coarse to find neighbours.
        allowed = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with autocast_off(queries.device):
                return search_exactly(self.passes(), queries, self.centre, self.rows, k)
        finally:
            torch.set_float32_matmul_precision(allowed)

    def passes(self) -> list[tuple[Approximate, torch.dtype]]:
        """Searches by expanded squares in float32, and in float64 for the few queries that this is too coarse for."""
        types = (torch.float32, torch.float64)
        return [(partial(self.approximately, dtype=dtype), dtype) for dtype in types]

    def approximately(self, queries: Tensor, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The rows nearest by expanded squares: (M, D) -> squared distances (M, count), ascending, and rows."""
        exact = torch.promote_types(queries.dtype, dtype)
        centred = (queries.to(exact) - self.centre.to(exact)).to(dtype)
        values = centred.new_full((len(queries), count), float("inf"))
        rows = torch.full(values.shape, -1, dtype=torch.long, device=queries.device)
        some_queries, some_rows = self.block
        for top in range(0, self.rows.count, some_rows):
            points, squares = self._centred(top, dtype)
            for first in range(0, len(queries), some_queries):
                part = slice(first, first + some_queries)
                value, place = smallest(torch.addmm(squares, centred[part], points.t(), alpha=-2), count)
                value, place = torch.cat([values[part], value], 1), torch.cat([rows[part], place + top], 1)
                values[part], order = value.topk(count, dim=1, largest=False)
                rows[part] = place.gather(1, order)
        return values + centred.square().sum(dim=1, keepdim=True), rows

    def _centred(self, top: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(n, D) rows from the centre, (n,) their squared lengths; filled up to whole groups, infinitely far away."""
        if dtype == torch.float32 and top in self.held:
            return self.held[top]
        points = (self.rows.block(top, self.block[1]).double() - self.centre).to(dtype)
        missing = -len(points) % GROUP
        squares = F.pad(points.square().sum(dim=1), (0, missing), value=float("inf"))
        return F.pad(points, (0, 0, 0, missing)), squares


def smallest(near: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest of each row of (m, n), or all, and where they are; n is a multiple of ``GROUP``.

    They are in the groups with the smallest minima, so that most groups are read but once, for theirs.

    Example:
        >>> smallest(torch.arange(2.0 * GROUP).flip(0)[None], 2)
        (tensor([[0., 1.]]), tensor([[255, 254]]))
    """
    groups = near.unflatten(1, (-1, GROUP))  # (m, n) -> (m, n / GROUP, GROUP)
    chosen = groups.amin(dim=2).topk(min(count, groups.shape[1]), dim=1, largest=False).indices  # (m, c)
    members = groups.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    value, place = members.topk(min(count, members.shape[1]), dim=1, largest=False)
    return value, chosen.gather(1, place // GROUP) * GROUP + place % GROUP


def centre_of(rows: Rows) -> Tensor:
    """(D,) float64 of values that float32 has, near the rows' mean: from an even sample of them."""
    mean = rows.sample().mean(axis=0, dtype="float64").astype("float32")
    return torch.from_numpy(mean.astype("float64")).to(rows.device)
