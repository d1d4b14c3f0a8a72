"""Search in a patch database for the loss."""

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.constants import unit_range
from gramgan_plugin.functional.texture_options import TextureOptions
from gramgan_plugin.patchdb.store import Store, check_fits, open_store
from gramgan_plugin.search.exact import ExactSearch
from gramgan_plugin.search.hnsw import HnswSearch
from gramgan_plugin.search.index_cache import open_index, read_facts
from gramgan_plugin.search.kinds import kind_of_search
from gramgan_plugin.search.neighbours import Search
from gramgan_plugin.search.tree import TreeSearch
from gramgan_plugin.utils.precision import at_least_float32

logger = logging.getLogger("basicsr")

# With at least so many rows, making a tree takes long enough to log it.
MANY_ROWS = 1_000_000
# Numbers of Gram vectors read at a time.
BLOCK = 2**22


class PatchSearch:
    """A search for the nearest patches of a database, which also returns their pixels.

    On a CPU, ``tree`` and ``exact`` are exact, and ``hnsw`` finds nearly all of the nearest patches (its recall is in
    the database's ``index/hnsw.json``). On a GPU every search is exact. A device's search is made at its first use, in
    the process that uses it. Pickling stores the path and opens the database again; copying returns the object itself,
    since its results never change.

    Args:
        store: the database.
        index: ``tree``, ``exact``, ``hnsw``, or ``auto``: a k-d tree for at most eight dimensions; otherwise exact for
            few patches and hnsw for many.
        device: where to search; if given, the search is made at once. None for the device of the queries.

    Raises:
        ValueError: for an unknown index.
        UserError: if the database's Gram vectors are not finite.

    Example:
        >>> import tempfile, numpy as np
        >>> from gramgan_plugin.patchdb.database_manifest import Definition
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
        # With its index, as in a tensor's device.
        self.device = None if device is None else torch.empty(0, device=device).device
        self.kind = kind_of_search(index, *store.grams.shape)
        self._searches: dict[torch.device, Search] = {}
        self._rows: dict[torch.device, Tensor] = {}
        self._patches: dict[torch.device, Tensor] = {}
        if self.device is not None:
            self._search_on(_searched_on(self.device))

    def check(self, options: TextureOptions, features: Any = None) -> None:
        """Check that a texture loss with these options compares the Gram vectors that the database has.

        Args:
            options: the loss's.
            features: its ``VGG19Layer``; None for pixels.

        Raises:
            ValueError: if there are fewer patches than ``top_k``.
            OptionError: if the vectors are of other patches, pixels or features.
        """
        if options.top_k > self.store.count:
            raise ValueError(f"top_k: {options.top_k}, but {self.store.path} has {self.store.count} patches")
        check_fits(
            self.store,
            patch_size=options.patch_size,
            channels=self.store.definition.channels,  # those of the images are checked in the search
            normalize=options.normalize,
            center=options.center,
            layer=None if features is None else features.layer,
            weights=None if features is None else features.weights_sha256(),
        )

    @torch.no_grad()
    def search(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Find the nearest patches of each query.

        Args:
            queries: (M, D) Gram vectors.
            k: number of patches, at most all.

        Returns:
            Squared distances (M, k) in float32, ascending, and rows of the database (M, k), int64, on the device of the
            queries. A non-finite query gets row 0 and infinity.

        Raises:
            ValueError: if ``queries`` or ``k`` do not fit the database.
        """
        count, dimensions = self.store.grams.shape
        if queries.dim() != 2 or queries.shape[1] != dimensions:
            raise ValueError(f"queries: expected (M, {dimensions}), got {tuple(queries.shape)}")
        if not 1 <= k <= count:
            raise ValueError(f"k: expected 1 to {count}, the patches of {self.store.path}, got {k}")
        device = _searched_on(queries.device if self.device is None else self.device)
        (points,) = at_least_float32(queries.detach().to(device))
        unusable = _not_finite(points)
        if unusable is not None:
            points = points.masked_fill(unusable, 0)
        squared, rows = self._search_on(device).search(points, k)
        squared = squared.float()
        if unusable is not None:
            squared, rows = squared.masked_fill(unusable, float("inf")), rows.masked_fill(unusable, 0)
        return squared.to(queries.device), rows.to(queries.device)

    def grams(self, index: Tensor) -> Tensor:
        """Return the Gram vectors (..., D), float32, of the rows ``index`` (...), on its device."""
        device = _searched_on(index.device)
        return self._rows_on(device)[index.to(device)].to(index.device)

    def patches(self, index: Tensor) -> Tensor:
        """Return patches without margins (..., p, p, C), float32 in [0, 1], of rows ``index`` (...), on its device."""
        if index.device.type != "cuda":
            levels = torch.from_numpy(self.store.inner(index.cpu().numpy()))
            return unit_range(levels.to(index.device))
        if index.device not in self._patches:
            inner = self.store.definition.inner(self.store.patches)
            self._patches[index.device] = torch.from_numpy(np.array(inner)).to(index.device)
        return unit_range(self._patches[index.device][index])

    def _search_on(self, device: torch.device) -> Search:
        if device not in self._searches:
            self._searches[device] = self._make_search(device)
        return self._searches[device]

    def _make_search(self, device: torch.device) -> Search:
        check_finite(self.store)
        rows = self._rows_on(device)
        if device.type != "cpu" or self.kind == "exact":
            return ExactSearch(rows)
        if self.kind == "hnsw":
            index, facts = open_index(self.store.path, self.store.fingerprint, rows)
            return HnswSearch(rows, index, facts["settings"]["effort"])
        start = time.monotonic()
        search = TreeSearch(rows)
        if len(rows) >= MANY_ROWS:
            took = time.monotonic() - start
            logger.info("%s: a tree over %d patches made in %.1f s", self.store.path, len(rows), took)
        return search

    def _rows_on(self, device: torch.device) -> Tensor:
        if device not in self._rows:
            self._rows[device] = rows_of(self.store, device)
        return self._rows[device]

    def __deepcopy__(self, memo: dict[int, Any]) -> "PatchSearch":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return open_search, (self.store.path, self.index, self.device)


def open_search(path: Path, index: str = "auto", device: torch.device | None = None) -> PatchSearch:
    """Open a database for search; see ``PatchSearch``.

    Raises:
        UserError: if the database is missing, damaged, or was written by a newer version.
    """
    return PatchSearch(open_store(path), index, device)


def build_index(store: Store, kind: str = "auto") -> dict[str, Any]:
    """Make the index that a search will use, unless a cached one fits; tree and exact need none.

    Args:
        store: the database.
        kind: one of `kinds.KINDS`.

    Returns:
        ``kind``, and for hnsw ``faiss`` (its version), ``settings`` and ``recall`` (``queries``, ``at_1``, ``at_10``).

    Raises:
        UserError: if Gram vectors are not finite.
    """
    kind = kind_of_search(kind, *store.grams.shape)
    if kind != "hnsw":
        return {"kind": kind}
    check_finite(store)
    return open_index(store.path, store.fingerprint, rows_of(store))[1]


def index_facts(store: Store) -> list[dict[str, Any]]:
    """Return the result of ``build_index`` for the cached index, if it was made for this database."""
    facts = read_facts(store.path)
    return [facts.public()] if facts is not None and facts.database == store.fingerprint else []


def check_finite(store: Store) -> None:
    """Refuse non-finite Gram vectors: no search accepts them.

    Raises:
        UserError: if there are any.
    """
    step = max(1, BLOCK // store.grams.shape[1])
    for top in range(0, store.count, step):
        if not np.isfinite(store.grams[top : top + step]).all():
            raise UserError(
                f"{store.path / 'grams.npy'}: damaged (not all numbers are finite); build the database again"
            )


def rows_of(store: Store, device: torch.device | None = None) -> Tensor:
    """Return the Gram vectors (N, D) float32: on a CPU mapped from the file, on a GPU a copy."""
    mapped = as_tensor(store.grams)
    if device is None or device.type == "cpu":
        return mapped
    rows = torch.empty(mapped.shape, device=device)
    step = max(1, BLOCK // mapped.shape[1])
    for top in range(0, len(rows), step):
        rows[top : top + step] = mapped[top : top + step]
    return rows


def as_tensor(array: NDArray[np.float32]) -> Tensor:
    """Return a tensor that shares an array's memory, possibly a read-only file: nothing may write to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the memory is read-only
        return torch.from_numpy(array)


def _searched_on(device: torch.device) -> torch.device:
    """Return the device to search on: CUDA GPUs themselves, the CPU for other devices, which may lack float64."""
    return device if device.type == "cuda" else torch.device("cpu")


def _not_finite(queries: Tensor) -> Tensor | None:
    """Return a mask (M, 1) of the non-finite queries; on a CPU None if all are finite."""
    if queries.device.type == "cpu":
        # In numpy: torch's threads stay awake for some milliseconds and would slow down the search.
        finite = np.isfinite(queries.numpy()).all(axis=1, keepdims=True)
        return None if finite.all() else torch.from_numpy(~finite)
    return ~torch.isfinite(queries).all(dim=1, keepdim=True)  # a check for any would wait for the GPU
