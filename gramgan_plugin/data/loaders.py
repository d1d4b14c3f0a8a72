"""Data loaders: seeded for training, so that a place in the data is a number; one image at a time for the rest."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from gramgan_plugin.data.fingerprint import fingerprint
from gramgan_plugin.data.seeded import SampleIndex, SeededDataset, SeededSampler
from gramgan_plugin.data.unreadable import MAX_UNREADABLE, Batch, SkippingDataset, UnreadableImages, collate
from gramgan_plugin.data.workers import Lifeline
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.registries import lookup
from gramgan_plugin.utils.text import first_line

_SYSTEM_ERROR = re.compile(r"\[Errno (?P<number>\d+)\] (?P<what>[^:]*)(?:: '(?P<file>.*)')?$")


def build_dataset(key: str, options: dict[str, Any]) -> Dataset[Any]:
    """Return a dataset from its option block.

    Raises:
        OptionError: if its type is unknown, or a key it needs is missing.
    """
    cls = lookup("dataset", options.get("type", ""), f"datasets.{key}.type")
    try:
        # BasicSR's datasets pop from their options.
        return cls({name: dict(v) if isinstance(v, dict) else v for name, v in options.items()})
    except KeyError as error:
        raise OptionError(f"datasets.{key}: {cls.__name__} needs the key {error}") from error
    except (FileNotFoundError, NotADirectoryError, AssertionError, ValueError) as error:
        raise OptionError(f"datasets.{key}: {first_line(error)}") from error


class TrainingData:
    """Endless batches of a training set, from any place in their order.

    An image that cannot be read is named in the log once, and another takes its place, see ``unreadable``.

    Attributes:
        batch_size: images of a batch of this process.
        batches_per_epoch: full batches in one pass over the (enlarged) set, of this process.
        size: images in the set.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        options = opt["datasets"].get("train")
        if options is None:
            raise OptionError("datasets.train: missing")
        # Before anything else opens an LMDB: a process cannot open one twice.
        self.fingerprint = fingerprint(options)
        dataset = build_dataset("train", options)
        self.size = len(dataset)  # type: ignore[arg-type]
        if self.size == 0:
            raise OptionError("datasets.train: holds no images")
        factor = 1 if opt["dist"] else max(1, opt["num_gpu"])
        self.batch_size = int(options.get("batch_size_per_gpu", 1)) * factor
        self.sampler = SeededSampler(
            self.size,
            opt["manual_seed"],
            num_replicas=opt["world_size"],
            rank=opt["rank"],
            ratio=int(options.get("dataset_enlarge_ratio", 1)),
        )
        self.batches_per_epoch = len(self.sampler) // self.batch_size
        if self.batches_per_epoch == 0:
            raise OptionError(
                f"datasets.train: {self.size} images make no batch of {self.batch_size}; "
                "lower batch_size_per_gpu or raise dataset_enlarge_ratio"
            )
        share = options.get("max_unreadable")
        self.unreadable = UnreadableImages(self.size, MAX_UNREADABLE if share is None else share)
        self.workers = int(options.get("num_worker_per_gpu", 0)) * factor
        self.pin_memory = bool(options.get("pin_memory", torch.cuda.is_available()))
        self.dataset = SkippingDataset(SeededDataset(dataset, opt["manual_seed"]))

    def place(self, iteration: int) -> tuple[int, int]:
        """(epoch, batch in the epoch) that follows ``iteration`` iterations of this same data and batch."""
        return divmod(iteration, self.batches_per_epoch)

    def batches(self, epoch: int, batch: int = 0) -> Iterator[tuple[int, int, Any]]:
        """Yield (epoch, index of the batch in its epoch, data), without end.

        Args:
            epoch: the first batch's epoch.
            batch: its index in the epoch; ``batches_per_epoch`` is the next epoch's first.

        Raises:
            TrainingStopped: if more images are unreadable than ``datasets.train.max_unreadable`` allows.
            ValueError: if there is no such batch.
        """
        if epoch < 0 or not 0 <= batch <= self.batches_per_epoch:
            raise ValueError(f"epoch {epoch}, batch {batch}: an epoch has {self.batches_per_epoch} batches")
        return self._from(epoch + batch // self.batches_per_epoch, batch % self.batches_per_epoch)

    def facts(self) -> dict[str, Any]:
        """Return what decides order and content of the batches besides the seed, in plain types; for checkpoints."""
        return {
            "images": self.size,
            "batch": self.batch_size * self.sampler.num_replicas,  # of all processes
            "world_size": self.sampler.num_replicas,
            "ratio": self.sampler.ratio,
            "fingerprint": self.fingerprint,
        }

    def _from(self, epoch: int, batch: int) -> Iterator[tuple[int, int, Any]]:
        for data, unreadable in self._loaded(epoch, batch):
            self.unreadable.note(unreadable)
            yield epoch, batch, data
            batch += 1
            if batch == self.batches_per_epoch:
                epoch, batch = epoch + 1, 0

    def _loaded(self, epoch: int, batch: int) -> Iterator[Batch]:
        lifeline = Lifeline()
        # One iterator for all epochs, so that loading continues over their ends.
        loader = iter(
            DataLoader(
                self.dataset,
                batch_sampler=self._indices(epoch, batch),
                num_workers=self.workers,
                collate_fn=collate,
                worker_init_fn=lifeline.worker_init() if self.workers else None,
                pin_memory=self.pin_memory,
                # Its base seed would come from the global generator: a resumed run would draw one number more.
                generator=torch.Generator(),
            )
        )
        try:
            yield from loader
        except (UserError, OSError) as error:
            original = _from_a_worker(error)
            if original is error:
                raise
            raise original from error
        finally:
            del loader  # the last reference: its workers end in good order
            lifeline.cut()

    def _indices(self, epoch: int, batch: int) -> Iterator[list[SampleIndex]]:
        while True:
            self.sampler.set_epoch(epoch, start=batch * self.batch_size)
            samples = iter(self.sampler)
            for _ in range(batch, self.batches_per_epoch):
                yield list(islice(samples, self.batch_size))
            epoch, batch = epoch + 1, 0


def _from_a_worker(error: UserError | OSError) -> UserError | OSError:
    """Return the error itself; from a worker process its message comes wrapped in that process's traceback."""
    lines = str(error).strip().splitlines()
    if not lines or "DataLoader worker process" not in lines[0]:
        return error
    if isinstance(error, UserError):
        kind = type(error)
        return kind(lines[-1].removeprefix(f"{kind.__module__}.{kind.__qualname__}: "))
    system = _SYSTEM_ERROR.search(lines[-1])
    return OSError(int(system["number"]), system["what"], system["file"]) if system else error


def build_test_loaders(opt: dict[str, Any], phase: str) -> list[DataLoader[Any]]:
    """Return loaders of single images for the datasets of a phase (``val``, ``test``), in the order of their keys."""
    loaders = []
    for key, options in sorted(opt["datasets"].items()):
        if options["phase"] == phase:
            dataset = build_dataset(key, options)
            loaders.append(DataLoader(dataset, batch_size=1, shuffle=False, num_workers=0))
    return loaders
