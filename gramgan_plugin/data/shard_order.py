"""A random order over shards that reads each of them once, in a few at a time."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from gramgan_plugin.data.seeded import ORDER_STREAM, SampleIndex, SeededSampler

# Lanes of shards that are read side by side, and shards of a lane whose samples are mixed: 64 open shards in all.
LANES, MIXED = 16, 4


class ShardSampler(SeededSampler):
    """An order that depends on (manual_seed, epoch) alone, like `SeededSampler`'s, but keeps to few shards at a time.

    The shards are shuffled and dealt to lanes. A lane's shards are taken a few at a time, and their samples shuffled;
    an epoch takes a sample of each lane in turn. Replica r of R gets the positions r, r + R, ..., so where R divides
    the number of lanes, it reads only every R-th lane's shards. What lanes have left when the shortest ends comes
    last. Memory grows with the shards, not with the samples.

    Args:
        sizes: samples in each shard.
        manual_seed: as `SeededSampler`'s, and so are the others.
        num_replicas: processes that share the epoch.
        rank: this process among them.
        ratio: passes over the shards in an epoch.
        lanes: at most so many; fewer than two shards to a lane make no lane.
        mixed: shards of a lane whose samples are shuffled together.

    Example:
        >>> sampler = ShardSampler([3, 5, 2], manual_seed=0, lanes=2)
        >>> sorted(sample.index for sample in sampler)
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        manual_seed: int,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        ratio: int = 1,
        lanes: int = LANES,
        mixed: int = MIXED,
    ) -> None:
        super().__init__(sum(sizes), manual_seed, num_replicas=num_replicas, rank=rank, ratio=ratio)
        self.sizes = np.asarray(sizes)
        self.firsts = np.cumsum(self.sizes) - self.sizes  # each shard's first sample
        self.lanes, self.mixed = max(1, min(lanes, len(sizes) // 2)), mixed

    def __iter__(self) -> Iterator[SampleIndex]:
        drawn, order, number = self.length * self.ratio, None, -1
        epoch = self.epoch
        for count in range(self.start, len(self)):
            position = self.rank + count * self.num_replicas
            turn, place = divmod(position % drawn, self.length)
            if order is None or turn != number:
                order, number = _Pass(self, epoch, turn), turn
            yield SampleIndex(epoch, position, order.sample(place))


class _Pass:
    """The order of one pass over the shards."""

    def __init__(self, sampler: ShardSampler, epoch: int, turn: int) -> None:
        self.sampler, self.key = sampler, (ORDER_STREAM, epoch, turn)
        lanes = sampler.lanes
        shards = self._random(0).permutation(len(sampler.sizes))
        # Dealt one after the other to the lane that has the fewest samples, so that all are about as long.
        dealt: list[list[int]] = [[] for _ in range(lanes)]
        lengths = [0] * lanes
        for shard in shards:
            lane = lengths.index(min(lengths))
            dealt[lane].append(int(shard))
            lengths[lane] += int(sampler.sizes[shard])
        # The shards of each lane whose samples are mixed, and where such a group begins in the lane.
        step = sampler.mixed
        self.groups = [[own[n : n + step] for n in range(0, len(own), step)] for own in dealt]
        self.begins = [[0, *accumulate(int(sampler.sizes[g].sum()) for g in groups)] for groups in self.groups]
        self.even = min(lengths)  # samples that every lane has
        self.rests = [0, *accumulate(length - self.even for length in lengths)]
        self._kept: dict[int, tuple[int, np.ndarray]] = {}  # lane -> its current group

    def sample(self, place: int) -> int:
        """Return the sample at a place of the pass."""
        lanes = self.sampler.lanes
        if place < self.even * lanes:
            return self._in_lane(place % lanes, place // lanes)
        place -= self.even * lanes
        lane = bisect_right(self.rests, place) - 1
        return self._in_lane(lane, self.even + place - self.rests[lane])

    def _in_lane(self, lane: int, place: int) -> int:
        group = bisect_right(self.begins[lane], place) - 1
        if self._kept.get(lane, (-1,))[0] != group:
            sampler = self.sampler
            samples = np.concatenate(
                [np.arange(sampler.sizes[shard]) + sampler.firsts[shard] for shard in self.groups[lane][group]]
            )
            self._random(1, lane, group).shuffle(samples)
            self._kept[lane] = (group, samples)
        return int(self._kept[lane][1][place - self.begins[lane][group]])

    def _random(self, *what: int) -> np.random.RandomState:
        # numpy guarantees that RandomState's streams stay the same; Generator's may change.
        seed = np.random.SeedSequence(self.sampler.manual_seed, spawn_key=(*self.key, *what))
        return np.random.RandomState(np.random.MT19937(seed))
