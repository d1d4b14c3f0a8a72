"""Exact search by matrix products, then differences; and the choice of a search for the candidates of a crop."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from gramgan_plugin.search.differences import Neighbourhood, search_allowed, search_by_differences
from gramgan_plugin.search.kinds import FEW_DIMENSIONS
from gramgan_plugin.search.neighbours import Found, centre_of, in_order, squared_distances
from gramgan_plugin.search.tree import TreeSearch, first_equal, has_trees
from gramgan_plugin.utils.precision import at_least_float32, autocast_off, full_float32
from gramgan_plugin.utils.untraced import untraced

# At most so many distances of a sample are all computed from differences.
FEW_DISTANCES = 2**18
# Products of a block: on a CPU larger blocks are hardly faster; on a GPU this is 512 MiB in float32.
CPU_BLOCK, GPU_BLOCK = 2**21, 2**27
# Limits of a block: rows, and numbers in them.
MOST_ROWS, MOST_NUMBERS = 2**15, 2**22


@torch.no_grad()
def nearest_candidates(
    queries: Tensor, candidates: Tensor, chunk_size: int = 2**22, allowed: Neighbourhood | None = None
) -> Tensor:
    """Return the index of the candidate at the smallest Euclidean distance from each query; see `nearest_several`.

    Args:
        queries: (N, Q, D).
        candidates: (N, K, D).
        chunk_size: the maximum number of distances in memory.
        allowed: the candidates that each query may choose, at least one each; by default all.

    Returns:
        (N, Q), int64: the lowest index among equal candidates; any index for a non-finite query.

    Raises:
        ValueError: if the shapes do not match, there is no candidate, or ``chunk_size`` is below 1.

    Example:
        >>> import torch
        >>> nearest_candidates(torch.tensor([[[0.2], [0.9]]]), torch.tensor([[[0.0], [1.0], [1.0]]]))
        tensor([[0, 1]])
    """
    return nearest_several(queries, candidates, 1, chunk_size, allowed)[1].squeeze(2)


@untraced
@torch.no_grad()
def nearest_several(
    queries: Tensor,
    candidates: Tensor,
    k: int = 1,
    chunk_size: int = 2**22,
    allowed: Neighbourhood | None = None,
    *,
    wait: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the k candidates at the smallest Euclidean distances from each query; the search is exact.

    The method depends on the sizes. On a CPU, many points of few dimensions are searched with a k-d tree in float64
    (where scipy is installed), many points of more dimensions with `ExactSearch`. On a GPU, few dimensions are searched
    by differences, more dimensions with `ExactSearch`, without waiting for the GPU. Few points, and neighbourhoods, are
    searched by differences on every device.

    ``chunk_size``, and on a CPU also the size of its cache, limits the distances in memory.

    Args:
        queries: (N, Q, D).
        candidates: (N, K, D).
        k: number of neighbours, at least 1.
        chunk_size: the maximum number of distances in memory.
        allowed: the candidates that each query may choose; by default all.
        wait: whether the search may wait for values of the device; None waits on a CPU only, where that costs nothing.

    Returns:
        Squared distances (N, Q, k) in at least float32, ascending, and indices (N, Q, k), int64. With fewer than k
        candidates the last distances are infinite and their indices 0. For ``k = 1`` the lowest index among equal
        candidates comes first; otherwise the order of equally near candidates is undefined.

    Raises:
        ValueError: if the shapes do not match, there is no candidate, or ``k`` or ``chunk_size`` is below 1.
    """
    _check(queries, candidates, k, chunk_size)
    queries, candidates = at_least_float32(queries, candidates)
    if 0 in queries.shape[:2]:
        shape = (*queries.shape[:2], k)
        return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.long)
    wait = queries.device.type == "cpu" if wait is None else wait
    with autocast_off(queries.device):
        if allowed is not None:
            return search_allowed(queries, candidates, k, chunk_size, allowed)
        low = queries.shape[2] <= FEW_DIMENSIONS
        if queries.shape[1] * candidates.shape[1] < FEW_DISTANCES or (low and not wait):
            return search_by_differences(queries, candidates, k, chunk_size)
        if wait and not (torch.isfinite(queries).all() and torch.isfinite(candidates).all()):
            # A step with non-finite points is skipped later; the search must not fail.
            return search_by_differences(queries, candidates, k, chunk_size)
        if low and has_trees():
            return search_by_trees(queries, candidates, k)
        return search_by_products(queries, candidates, k, chunk_size, wait)


def search_by_trees(queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search finite points on a CPU as `nearest_several`: one `TreeSearch` for each sample."""
    threads = torch.get_num_threads()
    at_a_time = min(threads, len(queries))

    def search(q: Tensor, points: Tensor, few: int) -> Found:
        return TreeSearch(points, often=False).search(q, few, max(1, threads // at_a_time))

    return _each_sample(search, queries, candidates, k, at_a_time)


def search_by_products(
    queries: Tensor, candidates: Tensor, k: int, chunk_size: int, wait: bool = True
) -> tuple[Tensor, Tensor]:
    """Search finite points as `nearest_several`: one `ExactSearch` for each sample."""

    def search(q: Tensor, points: Tensor, few: int) -> Found:
        return ExactSearch(points, chunk_size, wait).search(q, few)

    return _each_sample(search, queries, candidates, k)


def _each_sample(
    search: Callable[[Tensor, Tensor, int], Found], queries: Tensor, candidates: Tensor, k: int, threads: int = 1
) -> tuple[Tensor, Tensor]:
    """Search each sample: (N, Q, D), (N, K, D) -> (N, Q, k), padded where there are fewer than k candidates."""
    few = min(k, candidates.shape[1])
    squared = queries.new_full((*queries.shape[:2], k), float("inf"))
    index = squared.new_zeros(squared.shape, dtype=torch.long)

    def one(n: int) -> None:
        squared[n, :, :few], index[n, :, :few] = search(queries[n], candidates[n], few)

    if threads == 1:
        for n in range(len(queries)):
            one(n)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(len(queries))))
    return squared, index


class ExactSearch:
    """Exact search in all rows, by matrix products first: |c - q|^2 = |c|^2 - 2 c q + |q|^2.

    Products are fast but inexact: in float32 the distances of near neighbours have few correct digits or none. So they
    only exclude rows. The k rows with the smallest float32 products are measured by differences. If the product of any
    other row is within its rounding error of the k-th distance, float64 products select the rows that may be as near,
    and all of these are measured. If float32 products are rounded to fewer digits by a torch setting, the error shows,
    and all queries are searched in float64.

    With ``wait=False`` the products are in float64 and decide alone: rows count as equally near if their squared
    distances differ by less than about 1e-15 of the squared lengths.

    Args:
        rows: (N, D) float32 or float64, on the device to search on.
        block: the maximum number of products in memory; on a CPU the size of its cache limits them, too.
        wait: whether the search may wait for values of the device.

    Example:
        >>> search = ExactSearch(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
        >>> found = search.search(torch.zeros(1, 2), k=3)
        >>> found.rows.tolist(), found.squared.tolist()
        ([[0, 2, 1]], [[0.0, 0.0, 25.0]])
    """

    def __init__(self, rows: Tensor, block: int = GPU_BLOCK, wait: bool = True) -> None:
        self.rows = rows
        self.centre = centre_of(rows)
        self.block = min(block, CPU_BLOCK) if rows.device.type == "cpu" else block
        self.wait = wait
        self._different: dict[int, Tensor] = {}

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> Found:
        """Return the k nearest rows of each query.

        Args:
            queries: (M, D) on the rows' device, finite.
            k: at most N.

        Returns:
            (M, k) each: the result of comparing each query with all rows in float64. Of equally near rows the lowest
            index comes first (any of them with ``wait=False``).
        """
        # A training run may have allowed matrix products in TF32 or bf16, which are too coarse to find neighbours.
        with full_float32(), autocast_off(queries.device):
            if not self.wait:
                return self._by_products(queries, k, torch.float64)[0]
            found, doubtful = self._by_products(queries, k, torch.float32)
            if len(doubtful):
                again = self._measured(queries[doubtful], found.squared[doubtful, -1], k)
                found.squared[doubtful], found.rows[doubtful] = again
            return found if k == 1 else in_order(*found)

    def _by_products(self, queries: Tensor, k: int, dtype: torch.dtype) -> tuple[Found, Tensor]:
        """Return the k rows with the smallest products, and the queries for which others may be nearer (if waiting)."""
        q = self._factors(queries, dtype)
        length = q[:, :-1].double().norm(dim=1)
        squared = torch.full((len(q), k), float("inf"), dtype=torch.float64, device=q.device)
        index = torch.zeros(squared.shape, dtype=torch.long, device=q.device)
        others = q.new_full((len(q),), float("inf"))  # the smallest product of a row that was not measured
        reliable = torch.ones((), dtype=torch.bool, device=q.device)
        for numbers, factors in self._blocks(dtype, k == 1):
            for part, product in self._products(q, factors):
                near = _smallest(product, k)
                which = torch.arange(len(near), device=near.device)
                which = which.repeat_interleave(near.shape[1], output_size=near.numel())
                found = numbers[near]
                distance = squared_distances(queries[part], self.rows, which, found.flatten()).view_as(near)
                if self.wait:
                    half = (distance - length[part, None].square()) / 2
                    error = _error(length[part, None], distance.sqrt(), factors)
                    reliable &= ((product.gather(1, near) - half).abs() <= error).all()
                    product.scatter_(1, near, float("inf"))
                    others[part] = torch.minimum(others[part], product.amin(dim=1))
                squared[part], index[part] = _nearer(Found(squared[part], index[part]), Found(distance, found))
        if not self.wait:
            return Found(squared, index), index[:0]
        limit = self._limit(length, squared[:, -1], factors)
        return Found(squared, index), ((others <= limit) | ~reliable).nonzero()[:, 0]

    def _measured(self, queries: Tensor, farthest: Tensor, k: int) -> Found:
        """Return the k nearest of the rows within the squared distances ``farthest`` (M,); there are at least k."""
        q = self._factors(queries, torch.float64)
        squared = torch.full((len(q), k), float("inf"), dtype=torch.float64, device=q.device)
        index = torch.zeros(squared.shape, dtype=torch.long, device=q.device)
        length = q[:, :-1].norm(dim=1)
        for numbers, factors in self._blocks(torch.float64, k == 1):
            limit = self._limit(length, farthest, factors)[:, None]
            for part, product in self._products(q, factors):
                which, near = (product <= limit[part]).nonzero().unbind(dim=1)
                near = numbers[near]
                distance = torch.cat(
                    [squared[part].flatten(), squared_distances(queries[part], self.rows, which, near)]
                )
                near = torch.cat([index[part].flatten(), near])
                query = torch.arange(len(product), device=q.device)
                which = torch.cat([query.repeat_interleave(k), which])
                # Ordered by query, then distance, then index.
                order = distance.argsort(stable=True)
                order = order[which[order].argsort(stable=True)]
                first = torch.searchsorted(which[order], query)
                best = order[first[:, None] + torch.arange(k, device=q.device)]  # each query has at least k rows
                squared[part], index[part] = distance[best], near[best]
        return Found(squared, index)

    def _blocks(self, dtype: torch.dtype, nearest_only: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield numbers of rows (n,) and their factors (n, D + 1): c and |c|^2 / 2, relative to the centre."""
        step = max(1, min(MOST_ROWS, self.block, MOST_NUMBERS // self.rows.shape[1]))
        for top in range(0, len(self.rows), step):
            rows = self.rows[top : top + step]
            numbers = torch.arange(top, top + len(rows), device=rows.device)
            if nearest_only and self.wait and rows.device.type == "cpu":
                # Only the first of equal rows is searched and measured.
                if top not in self._different:
                    self._different[top] = numbers[torch.from_numpy(first_equal(rows.numpy())) == numbers - top]
                numbers = self._different[top]
                rows = rows if len(rows) == len(numbers) else self.rows[numbers]
            points = rows.double() - self.centre
            factors = points.new_empty(len(points), points.shape[1] + 1, dtype=dtype)
            factors[:, :-1] = points
            factors[:, -1] = points.square().sum(dim=1) / 2
            yield numbers, factors

    def _factors(self, queries: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (M, D + 1), whose products with a block's factors are |c|^2 / 2 - c q, relative to the centre."""
        q = queries.new_ones(len(queries), queries.shape[1] + 1, dtype=dtype)
        q[:, :-1] = self.centre - queries.double()
        return q

    def _products(self, q: Tensor, factors: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of queries and their products (m, n) with a block's factors; the memory is reused."""
        count = len(factors)
        height = max(1, min(len(q), self.block // count))
        buffer = q.new_empty(height, count)
        for top in range(0, len(q), height):
            part = slice(top, top + height)
            yield part, torch.mm(q[part], factors.t(), out=buffer[: len(q[part])])

    def _limit(self, length: Tensor, squared: Tensor, factors: Tensor) -> Tensor:
        """Return the largest products, in the factors' type, of rows within these squared distances."""
        limit = ((squared - length.square()) / 2 + _error(length, squared.sqrt(), factors)).to(factors.dtype)
        return torch.nextafter(limit, torch.full_like(limit, float("inf")))


def _error(length: Tensor, distance: Tensor, factors: Tensor) -> Tensor:
    """Return the largest error of the products of queries of ``length`` with rows within ``distance``.

    An inner product of D + 1 terms with rounded factors, added in any order, is off by less than (D + 8) u times the
    sum of the terms' magnitudes. In float64 the squares and the measured distances have a similar rounding error.
    """
    longest = length + distance  # the length of such a row is at most this
    unit = (factors.shape[1] + 7) * torch.finfo(factors.dtype).eps / 2 * (4 if factors.dtype == torch.float64 else 1)
    return unit * (length * longest + longest.square() / 2)


def _smallest(product: Tensor, k: int) -> Tensor:
    """Return the places (m, k) of the k smallest (or of all, if fewer) of each row of (m, n)."""
    if k > 1:
        return product.topk(min(k, product.shape[1]), dim=1, largest=False).indices
    if product.device.type == "cpu":  # numpy's argmin is many times as fast as torch's
        return torch.from_numpy(product.numpy().argmin(axis=1))[:, None]
    return product.argmin(dim=1, keepdim=True)


def _nearer(first: Found, second: Found) -> Found:
    """Return the k nearest of two lists (m, k) and (m, c); of equally near rows those of the first list."""
    k = first.squared.shape[1]
    if k == 1:
        closer = second.squared < first.squared
        return Found(*(torch.where(closer, new, old) for old, new in zip(first, second, strict=True)))
    squared, order = torch.cat([first.squared, second.squared], dim=1).sort(dim=1, stable=True)
    return Found(squared[:, :k], torch.cat([first.rows, second.rows], dim=1).gather(1, order[:, :k]))


def _check(queries: Tensor, candidates: Tensor, k: int, chunk_size: int) -> None:
    if queries.dim() != 3 or candidates.dim() != 3 or queries.shape[::2] != candidates.shape[::2]:
        raise ValueError(
            f"expected queries (N, Q, D) and candidates (N, K, D), "
            f"got {tuple(queries.shape)} and {tuple(candidates.shape)}"
        )
    if candidates.shape[1] == 0:
        raise ValueError("there is no candidate to choose from")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
