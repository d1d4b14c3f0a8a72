"""Nearest neighbours by matrix products, for many dimensions: |c - q|^2 = |c|^2 - 2 c q + |q|^2.

Products are fast but round: in float32 the distances of near neighbours have few right digits or none. So they only
say what cannot be the nearest. Where other candidates are within the products' largest error of the one found, products
in float64 look again, and what these leave within their error is measured by differences.
"""

import numpy as np
import torch
from torch import Tensor

from gramgan_plugin.functional.nearest_dense import on_cpu
from gramgan_plugin.functional.nearest_tree import first_equal

# Entries of a block of products on a CPU; larger ones are hardly faster.
CPU_BLOCK = 2**21
# Differences measured at a time, in numbers.
DIFFERENCES = 2**22


def search_by_products(queries: Tensor, candidates: Tensor, k: int, chunk_size: int) -> tuple[Tensor, Tensor]:
    """As `nearest_several`.

    On a CPU the products are in float32, and for the queries that these leave in doubt in float64; the result is
    exact. Where a setting of torch's has float32 products rounded to fewer digits still, their errors show it, and
    float64 decides on all. On a GPU the products are in float64 and decide alone, so that nothing waits: candidates
    count as equally near if their squared distances differ by less than some 1e-15 of the squared lengths.
    """
    squared = queries.new_empty(*queries.shape[:2], k)
    index = squared.new_empty(squared.shape, dtype=torch.long)
    for n, (q, c) in enumerate(zip(queries, candidates, strict=True)):
        if on_cpu(queries):
            squared[n], index[n] = _search(q, c, k, min(chunk_size, CPU_BLOCK))
        else:
            squared[n], index[n] = _search_on_gpu(q, c, k, chunk_size)
    return squared, index


def _search(queries: Tensor, candidates: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """One sample on the CPU: (Q, D) and (K, D) -> (Q, k)."""
    numbers = torch.arange(len(candidates))
    if k == 1:  # of equal candidates the first is the one to find, and no other to be measured
        numbers = numbers[torch.from_numpy(first_equal(candidates.numpy())) == numbers]
        candidates = candidates[numbers]
    few = min(k, len(candidates))
    squared = queries.new_full((len(queries), k), float("inf"))
    index = squared.new_zeros(squared.shape, dtype=torch.long)
    found, exact, doubtful = _pass(queries, candidates, few, block, queries.dtype)
    if len(doubtful):
        found[doubtful], exact[doubtful], _ = _pass(queries[doubtful], candidates, few, block, torch.float64)
    order = exact.argsort(dim=1, stable=True)
    squared[:, :few], index[:, :few] = exact.gather(1, order).to(squared.dtype), numbers[found.gather(1, order)]
    return squared, index


def _pass(queries: Tensor, candidates: Tensor, k: int, block: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest by products of a type; in float64, of those and of all that may be as near.

    Returns:
        Candidates (Q, k), their squared distances in float64 (Q, k), and the queries for which the products of
        float32 do not tell whether others are nearer.
    """
    q, columns, reach = _factors(queries, candidates, dtype)
    lengths = q[:, :-1].double().norm(dim=1)
    # Of an inner product of D + 1 terms with rounded factors, relative to the product of the lengths, in any order of
    # the additions. Doubled, to be on the safe side.
    terms = queries.shape[1] + 8
    unit = 2 * terms * torch.finfo(dtype).eps / 2
    # And of what is done in float64 to the points as they were given.
    base = 4 * terms * torch.finfo(torch.float64).eps * _largest_square(queries, candidates)
    found = torch.empty(len(q), k, dtype=torch.long)
    exact = torch.empty(len(q), k, dtype=torch.float64)
    doubtful, reliable = [], True
    height = max(1, min(len(q), block // len(candidates)))
    buffer = q.new_empty(height, len(candidates))
    for top in range(0, len(q), height):
        rows = slice(top, top + height)
        product = torch.mm(q[rows], columns, out=buffer[: len(q[rows])])
        if k == 1:
            # numpy's argmin is many times as fast as torch's.
            near = torch.from_numpy(product.numpy().argmin(axis=1))[:, None]
        else:
            near = product.topk(k, dim=1, largest=False).indices
        which = torch.arange(len(near)).repeat_interleave(k)
        distance = _differences(queries[rows], candidates, which, near.flatten()).view_as(near)
        length, square = lengths[rows], lengths[rows].square()
        error = unit * (length[:, None] * reach[near] + reach[near].square() + square[:, None]) + base
        off = (product.gather(1, near).double() - (distance - square[:, None]) / 2).abs() > error
        reliable = reliable and not bool(off.any())
        # The nearest is no farther than what was found, so it is no longer than this, which bounds its error.
        last = distance.amax(dim=1)
        longest = length + last.sqrt()
        slack = unit * (length * longest + longest.square() + square) + base
        limit = ((last - square) / 2 + slack).to(dtype)
        limit = torch.nextafter(limit, torch.full_like(limit, float("inf")))[:, None]
        product.scatter_(1, near, float("inf"))
        close = (product.amin(dim=1, keepdim=True) <= limit).nonzero()[:, 0]
        if len(close) and dtype == torch.float64:
            pairs = (product[close] <= limit[close]).nonzero()
            _measure(queries[rows], candidates, close, pairs, near, distance)
        doubtful.append(top + close)
        found[rows], exact[rows] = near, distance
    return found, exact, torch.cat(doubtful) if reliable else torch.arange(len(q))


def _measure(queries: Tensor, candidates: Tensor, close: Tensor, pairs: Tensor, found: Tensor, exact: Tensor) -> None:
    """Put into ``found`` and ``exact``, (q, k), the nearest of them and of others that might be.

    Args:
        queries: (q, D).
        candidates: (K, D).
        close: (r,), rows to look at.
        pairs: (number of others, 2): place in ``close``, candidate.
        found: candidates.
        exact: their squared distances.
    """
    count = found.shape[1]
    others = _differences(queries, candidates, close[pairs[:, 0]], pairs[:, 1])
    row = torch.cat([torch.arange(len(close)).repeat_interleave(count), pairs[:, 0]]).numpy()
    number = torch.cat([found[close].flatten(), pairs[:, 1]])
    distance = torch.cat([exact[close].flatten(), others])
    order = np.lexsort((number.numpy(), distance.numpy(), row))  # of equally near ones the lowest index first
    starts = np.searchsorted(row[order], np.arange(len(close)))
    best = torch.from_numpy(order[starts[:, None] + np.arange(count)])  # (r, k); each row has its own k at least
    found[close], exact[close] = number[best], distance[best]


def _search_on_gpu(queries: Tensor, candidates: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """One sample without waiting for the device: (Q, D) and (K, D) -> (Q, k)."""
    q, columns, _ = _factors(queries, candidates, torch.float64)
    few = min(k, len(candidates))
    squared = queries.new_full((len(q), k), float("inf"))
    index = squared.new_zeros(squared.shape, dtype=torch.long)
    height = max(1, block // len(candidates))
    for top in range(0, len(q), height):
        rows = slice(top, top + height)
        product = q[rows] @ columns
        near = product.argmin(dim=1, keepdim=True) if few == 1 else product.topk(few, dim=1, largest=False).indices
        which = torch.arange(len(near), device=near.device).repeat_interleave(few, output_size=near.numel())
        index[rows, :few] = near
        squared[rows, :few] = _differences(queries[rows], candidates, which, near.flatten()).view_as(near)
    return squared, index


def _factors(queries: Tensor, candidates: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, D + 1) and (D + 1, K), whose product is half of |c|^2 - 2 c q, and the candidates' lengths in float64.

    The candidates' mean is the origin.
    """
    mean = candidates.double().mean(dim=0)
    c = candidates.double().sub_(mean) if candidates.dtype != torch.float64 else candidates - mean
    columns = c.new_empty(c.shape[1] + 1, len(c), dtype=dtype)
    columns[:-1] = c.t()
    reach = c.norm(dim=1)
    columns[-1] = reach.square() / 2
    q = columns.new_empty(len(queries), columns.shape[0])
    q[:, :-1] = mean - queries.double()
    q[:, -1] = 1
    return q, columns, reach


def _largest_square(*points: Tensor) -> float:
    return max(float(x.square().sum(dim=1).amax()) for x in points)


def _differences(queries: Tensor, candidates: Tensor, which: Tensor, index: Tensor) -> Tensor:
    """Squared distances in float64 of pairs: (q, D), (K, D), (m,), (m,) -> (m,)."""
    at_a_time = max(1, DIFFERENCES // queries.shape[1])
    parts = [
        (candidates[c].double() - queries[q].double()).square().sum(dim=1)
        for q, c in zip(which.split(at_a_time), index.split(at_a_time), strict=True)
    ]
    return torch.cat(parts)
