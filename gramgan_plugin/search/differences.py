"""Exact search for few points: compute all distances from differences, a block at a time, on any device."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Distances of a block on a CPU: two float32 buffers of this size stay in the second-level cache.
CPU_BLOCK = 2**17


@dataclass(frozen=True)
class Neighbourhood:
    """The candidates that a query may choose: centres within ``radius`` of its own (Chebyshev distance).

    Attributes:
        query_centres: (Q, 2), float64, on the CPU, where the search is planned.
        candidate_centres: (K, 2), float64, on the CPU.
        radius: largest distance allowed, in the units of the centres.
    """

    query_centres: Tensor
    candidate_centres: Tensor
    radius: float

    @property
    def reach(self) -> float:
        """The radius plus a tolerance: the centres of resized copies are rounded."""
        return self.radius * (1 + 1e-9)

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield queries of one height, the candidates (k,) that any of them may choose, and a mask (q, k) for each."""
        _, counts = torch.unique_consecutive(self.query_centres[:, 0], return_counts=True)
        start = 0
        for count in counts.tolist():
            centres = self.query_centres[start : start + count]
            low, high = centres.amin(dim=0) - self.reach, centres.amax(dim=0) + self.reach
            inside = (self.candidate_centres >= low) & (self.candidate_centres <= high)
            near = inside.all(dim=1).nonzero().squeeze(1)
            offset = centres[:, None] - self.candidate_centres[near]
            yield slice(start, start + count), near, (offset.abs() <= self.reach).all(dim=2)
            start += count


def search_by_differences(queries: Tensor, candidates: Tensor, k: int, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Search as `nearest_several`. On a CPU, results do not depend on ``chunk_size``: every step is rounded once."""
    block = min(chunk_size, CPU_BLOCK) if queries.device.type == "cpu" else chunk_size
    found = [
        _search(q, c.t().contiguous(), k, block, torch.arange(len(c), device=c.device), None)
        for q, c in zip(queries, candidates, strict=True)
    ]
    squared, index = zip(*found, strict=True)
    return torch.stack(squared), torch.stack(index)


def search_allowed(
    queries: Tensor, candidates: Tensor, k: int, chunk_size: int, allowed: Neighbourhood
) -> tuple[Tensor, Tensor]:
    """Search as `nearest_several`, each query among its allowed candidates."""
    squared = queries.new_full((*queries.shape[:2], k), float("inf"))
    index = squared.new_zeros(squared.shape, dtype=torch.long)
    for rows, near, mask in allowed.blocks():
        if not len(near):
            continue
        near, mask = (x.to(queries.device, non_blocking=True) for x in (near, mask))
        at_a_time = max(1, chunk_size // max(1, mask.numel()))
        if at_a_time > 1:  # several samples together, since their blocks are small
            for top in range(0, len(queries), at_a_time):
                part = slice(top, top + at_a_time)
                columns = candidates[part].index_select(1, near).transpose(1, 2)[:, :, None]  # (n, D, 1, k')
                distance = _squared_distances(queries[part, rows, :, None], columns)
                distance.masked_fill_(~mask, float("inf"))
                squared[part, rows], index[part, rows] = _smallest(distance, k, near)
        else:
            for n in range(len(queries)):
                columns = candidates[n].index_select(0, near).t().contiguous()
                squared[n, rows], index[n, rows] = _search(queries[n, rows], columns, k, chunk_size, near, mask)
    return squared, index.masked_fill_(squared == float("inf"), 0)


def _search(
    queries: Tensor, candidates: Tensor, k: int, block: int, numbers: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Search one sample, ``block`` distances at a time: queries (Q, D), candidates (D, K), numbers (K,) -> (Q, k)."""
    width = min(candidates.shape[1], block)
    height = max(1, min(queries.shape[0], block // width))
    buffers = queries.new_empty(2, height * width)
    squared = queries.new_empty(len(queries), k)
    index = squared.new_empty(squared.shape, dtype=torch.long)
    for top in range(0, len(queries), height):
        rows = slice(top, top + height)
        best: tuple[Tensor, Tensor] | None = None
        for left in range(0, candidates.shape[1], width):
            columns = slice(left, left + width)
            distance = _squared_distances(queries[rows, :, None], candidates[:, None, columns], buffers)
            if mask is not None:
                distance.masked_fill_(~mask[rows, columns], float("inf"))
            found = _smallest(distance, k, numbers[columns])
            best = found if best is None else _merge(best, found, k)
        assert best is not None
        squared[rows], index[rows] = best
    return squared, index


def _squared_distances(queries: Tensor, candidates: Tensor, buffers: Tensor | None = None) -> Tensor:
    """Return squared distances: (..., q, D, 1), (..., D, 1, k) -> (..., q, k), in the first buffer if given."""
    total = None
    for d in range(queries.shape[-2]):
        q, c = queries[..., d, :], candidates[..., d, :, :]  # (..., q, 1), (..., 1, k)
        if buffers is None:
            difference = c - q
        else:
            buffer = buffers[0 if total is None else 1]
            difference = buffer[: q.shape[-2] * c.shape[-1]].view(q.shape[-2], c.shape[-1])
            torch.sub(c, q, out=difference)
        if total is None:
            total = difference.mul_(difference)
        elif queries.device.type == "cpu":
            # Not addcmul: whether it rounds once or twice depends on the element's place in the block.
            total.add_(difference.mul_(difference))
        else:
            total.addcmul_(difference, difference)
    assert total is not None
    return total


def _smallest(distance: Tensor, k: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the k smallest distances of (..., q, K), ascending, and their candidates' numbers: (..., q, k)."""
    if k == 1:
        value, place = distance.min(dim=-1, keepdim=True)  # the first of equal values
        return value, numbers[place]
    value, place = distance.topk(min(k, distance.shape[-1]), dim=-1, largest=False)
    missing = k - value.shape[-1]
    if missing:
        value = torch.nn.functional.pad(value, (0, missing), value=float("inf"))
        place = torch.nn.functional.pad(place, (0, missing))
    return value, numbers[place]


def _merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest of two lists (q, k); of equal values those of the first list."""
    if k == 1:
        closer = second[0] < first[0]
        return torch.where(closer, second[0], first[0]), torch.where(closer, second[1], first[1])
    value, order = torch.sort(torch.cat([first[0], second[0]], dim=-1), dim=-1, stable=True)
    return value[:, :k], torch.cat([first[1], second[1]], dim=-1).gather(-1, order[:, :k])
