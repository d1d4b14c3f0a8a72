"""Make data order and augmentation functions of (manual_seed, epoch, position): no state, exact resume."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from gramgan_plugin.checkpoints.rng import preserve_rng
from gramgan_plugin.utils.devices import random_module

# First element of the spawn key: an epoch's order, a sample's augmentation and a batch's degradation never share a
# random stream; `unreadable` has 2.
ORDER_STREAM, SAMPLE_STREAM, DEGRADATION_STREAM = 0, 1, 3


class SampleIndex(NamedTuple):
    """The index that the sampler gives to the dataset: which sample, and which draw of the run."""

    epoch: int
    position: int  # in the epoch, over all replicas
    index: int  # type: ignore[assignment]  # in the dataset; hides tuple.index


class SeededSampler(Sampler[SampleIndex]):
    """A random order over a dataset that depends on (manual_seed, epoch) alone.

    An epoch is a permutation of ``length * ratio`` numbers, taken modulo ``length``; replica r of R gets the
    positions r, r + R, ... of it, so the order is the same for any number of replicas. If R does not divide
    the epoch, its first samples are repeated at the end, so that all replicas get the same number.

    Args:
        length: samples in the dataset.
        manual_seed: the run's seed, at least 0.
        num_replicas: processes that share the epoch.
        rank: this process among them.
        ratio: passes over the dataset in an epoch (``dataset_enlarge_ratio``).

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> sampler = SeededSampler(3, manual_seed=0)
        >>> sampler.set_epoch(5)
        >>> sorted(sample.index for sample in sampler)
        [0, 1, 2]
        >>> whole = list(sampler)
        >>> sampler.set_epoch(5, start=2)
        >>> list(sampler) == whole[2:]
        True
    """

    def __init__(self, length: int, manual_seed: int, *, num_replicas: int = 1, rank: int = 0, ratio: int = 1) -> None:
        if length < 1 or ratio < 1 or manual_seed < 0 or not 0 <= rank < num_replicas:
            raise ValueError(
                "SeededSampler needs length and ratio of at least 1, manual_seed of at least 0, rank below "
                f"num_replicas; got {length=}, {ratio=}, {manual_seed=}, {rank=}, {num_replicas=}"
            )
        self.length = length
        self.manual_seed = manual_seed
        self.num_replicas = num_replicas
        self.rank = rank
        self.ratio = ratio
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Set the epoch of the next iteration over the sampler.

        Args:
            epoch: at least 0.
            start: samples of this epoch that this replica has already used (when a run resumes).
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(f"epoch {epoch} and start {start}: start must be in [0, {len(self)}]")
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        """Return this replica's number of samples in a whole epoch, for any ``start``."""
        return -(-self.length * self.ratio // self.num_replicas)

    def __iter__(self) -> Iterator[SampleIndex]:
        drawn = self.length * self.ratio
        # numpy guarantees that RandomState's streams stay the same; Generator's may change.
        seed = np.random.SeedSequence(self.manual_seed, spawn_key=(ORDER_STREAM, self.epoch))
        order = np.random.RandomState(np.random.MT19937(seed)).permutation(drawn)
        epoch = self.epoch
        for count in range(self.start, len(self)):
            position = self.rank + count * self.num_replicas
            yield SampleIndex(epoch, position, int(order[position % drawn]) % self.length)


class SeededDataset(Dataset[Any]):
    """A wrapper for a map-style dataset that gives each sample its own seed.

    ``random``, ``numpy.random`` and torch's CPU generator are seeded from (manual_seed, epoch, position) before the
    wrapped dataset is called, and restored afterwards, so that loading in the training process (no workers) does not
    change its random state.

    Args:
        dataset: the dataset to wrap.
        manual_seed: the run's seed, at least 0.

    Example:
        >>> class Noise(Dataset):
        ...     def __len__(self):
        ...         return 4
        ...     def __getitem__(self, index):
        ...         return random.random(), float(torch.rand(()))
        >>> dataset = SeededDataset(Noise(), manual_seed=0)
        >>> dataset[SampleIndex(0, 2, 1)] == dataset[SampleIndex(0, 2, 1)]
        True
        >>> dataset[SampleIndex(0, 2, 1)] == dataset[SampleIndex(1, 2, 1)]
        False
    """

    def __init__(self, dataset: Dataset[Any], manual_seed: int) -> None:
        if manual_seed < 0:
            raise ValueError(f"manual_seed must be at least 0, got {manual_seed}")
        self.dataset = dataset
        self.manual_seed = manual_seed

    @property
    def opt(self) -> dict[str, Any]:
        """The wrapped dataset's options."""
        opt: dict[str, Any] = self.dataset.opt  # type: ignore[attr-defined]
        return opt

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, sample: SampleIndex) -> Any:
        if not isinstance(sample, SampleIndex):
            raise TypeError(
                f"SeededDataset is indexed by SampleIndex, got {type(sample).__name__}: give the loader a SeededSampler"
            )
        with seeded(self.manual_seed, (SAMPLE_STREAM, sample.epoch, sample.position)):
            return self.dataset[sample.index]


@contextmanager
def seeded(manual_seed: int, key: tuple[int, ...], device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch within a block, and restore their states afterwards.

    Args:
        manual_seed: the run's seed, at least 0.
        key: what the random numbers are for: a stream, then numbers of at least 0.
        device: the current GPU, whose own generator is seeded as well; None, or the CPU, for none.
    """
    words = np.random.SeedSequence(manual_seed, spawn_key=key).generate_state(8)
    seed = int(words[6]) << 31 | int(words[7]) >> 1
    with preserve_rng(device):
        random.seed(words[:4].tobytes())
        np.random.seed(words[4:6])
        # Not torch.manual_seed, which would also seed the training process's accelerators.
        torch.default_generator.manual_seed(seed)
        if (generator := random_module(device)) is not None:
            generator.manual_seed(seed)
        yield
