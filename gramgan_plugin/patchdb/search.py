"""The search in a patch database, as the loss uses it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gramgan_plugin.functional.precision import at_least_float32
from gramgan_plugin.patchdb.faiss_index import search_on_gpu
from gramgan_plugin.patchdb.faiss_library import has_faiss_for_gpus
from gramgan_plugin.patchdb.index import check_finite, kind_of_search, make_search
from gramgan_plugin.patchdb.neighbours import Rows, Search
from gramgan_plugin.patchdb.store import Store, open_store
from gramgan_plugin.patchdb.torch_search import TorchSearch


class PatchSearch:
    """The nearest patches of a database, and what they look like.

    On a CPU the index searches: ``kdtree`` and ``flat`` are exact, ``ivf`` and ``hnsw`` find nearly all of the nearest
    (the database's ``index/`` says how many). On a GPU every search is exact and done by torch; but where faiss
    for GPUs is installed, ``ivf`` asks for that. The search of a device is made when it is first needed, in the
    process that needs it. Pickling takes the path and opens the database again; a copy is the object itself, which
    never changes what it gives.

    Args:
        store: the database.
        index: ``kdtree``, ``flat``, ``ivf``, ``hnsw``, or ``auto``: a k-d tree up to eight dimensions, above that flat
            for few patches and hnsw for many.
        device: where to search; if given, the search is made at once. None follows the queries.

    Raises:
        ValueError: for an unknown index.
        UserError: if the database's Gram vectors are not finite.

    Example:
        >>> import tempfile, numpy as np
        >>> from gramgan_plugin.patchdb.manifest import Definition
        >>> from gramgan_plugin.patchdb.writing import write_store
        >>> patches = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_store(Path(folder), [patches], 50, Definition(patch_size=4))
        ...     search = open_search(Path(folder))
        ...     distance, index = search.search(search.grams(torch.tensor([7, 9])), k=2)
        >>> distance.shape, index[:, 0]
        (torch.Size([2, 2]), tensor([7, 9]))
    """

    def __init__(self, store: Store, index: str = "auto", device: torch.device | None = None) -> None:
        self.store = store
        self.index = index
        # With its number, as tensors name their device.
        self.device = None if device is None else torch.empty(0, device=device).device
        self.kind = kind_of_search(index, *store.grams.shape)
        self._searches: dict[torch.device, Search] = {}
        self._rows: dict[torch.device, Rows] = {}
        self._patches: dict[torch.device, Tensor] = {}
        if self.device is not None:
            self._search_on(_searched_on(self.device))

    @torch.no_grad()
    def search(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Find the nearest patches of each query.

        Args:
            queries: (M, D) Gram vectors.
            k: how many, at most all.

        Returns:
            Squared distances (M, k) in float32, ascending, and rows of the database (M, k), int64, on the device of the
            queries. A query that is not finite gets row 0 and infinity.

        Raises:
            ValueError: if ``queries`` or ``k`` do not fit the database.
        """
        count, dimensions = self.store.grams.shape
        if queries.dim() != 2 or queries.shape[1] != dimensions:
            raise ValueError(f"queries: expected (M, {dimensions}), got {tuple(queries.shape)}")
        if not 1 <= k <= count:
            raise ValueError(f"k: expected 1 to {count}, the patches of {self.store.path}, got {k}")
        device = _searched_on(queries.device if self.device is None else self.device)
        (asked,) = at_least_float32(queries.detach().to(device))
        unusable = _not_finite(asked)
        if unusable is not None:
            asked = asked.masked_fill(unusable, 0)
        squared, rows = self._search_on(device).search(asked, k)
        squared = squared.float()
        if unusable is not None:
            squared, rows = squared.masked_fill(unusable, float("inf")), rows.masked_fill(unusable, 0)
        return squared.to(queries.device), rows.to(queries.device)

    def grams(self, index: Tensor) -> Tensor:
        """Gram vectors (..., D), float32, of the rows ``index`` (...), on its device."""
        device = _searched_on(index.device)
        return self._rows_on(device).at(index.to(device)).to(index.device)

    def patches(self, index: Tensor) -> Tensor:
        """Patches (..., p, p, C), float32 in [0, 1], of the rows ``index`` (...), on its device, without margins."""
        if index.device.type != "cuda":
            levels = torch.from_numpy(self.store.inner(index.cpu().numpy()))
            return levels.to(index.device).float() / 255
        if index.device not in self._patches:
            inner = self.store.definition.inner(self.store.patches)
            self._patches[index.device] = torch.from_numpy(np.array(inner)).to(index.device)
        return self._patches[index.device][index].float() / 255

    def _search_on(self, device: torch.device) -> Search:
        if device not in self._searches:
            self._searches[device] = self._make_search(device)
        return self._searches[device]

    def _make_search(self, device: torch.device) -> Search:
        if device.type == "cpu":
            return make_search(self.store, self.kind)
        if self.index == "ivf" and has_faiss_for_gpus():
            return search_on_gpu(make_search(self.store, self.kind), device)
        check_finite(self.store)
        return TorchSearch(self._rows_on(device))

    def _rows_on(self, device: torch.device) -> Rows:
        if device not in self._rows:
            self._rows[device] = Rows(self.store.grams, device)
        return self._rows[device]

    def __deepcopy__(self, memo: dict[int, Any]) -> "PatchSearch":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return open_search, (self.store.path, self.index, self.device)


def open_search(path: Path, index: str = "auto", device: torch.device | None = None) -> PatchSearch:
    """Open a database to search in it; see ``PatchSearch``.

    Raises:
        UserError: if the database is missing, damaged, or was written by a newer version.
    """
    return PatchSearch(open_store(path), index, device)


def _searched_on(device: torch.device) -> torch.device:
    """GPUs of CUDA search themselves; for other devices, which may lack float64, the CPU does."""
    return device if device.type == "cuda" else torch.device("cpu")


def _not_finite(queries: Tensor) -> Tensor | None:
    """(M, 1), bool: which queries are not finite; None if all are, as far as a CPU can tell."""
    if queries.device.type == "cpu":
        # By numpy: torch's threads stay awake for some milliseconds, in the way of those that search next.
        finite = np.isfinite(queries.numpy()).all(axis=1, keepdims=True)
        return None if finite.all() else torch.from_numpy(~finite)
    return ~torch.isfinite(queries).all(dim=1, keepdim=True)  # reading whether there are any would wait for the GPU
