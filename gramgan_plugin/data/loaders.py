"""Build data loaders: seeded for training, so that a place in the data is a number; single images otherwise."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from gramgan_plugin.data.fingerprint import fingerprint
from gramgan_plugin.data.seeded import SampleIndex, SeededDataset, SeededSampler
from gramgan_plugin.data.streamed_sr_dataset import StreamedSRDataset
from gramgan_plugin.data.unreadable import MAX_UNREADABLE, Batch, SkippingDataset, UnreadableImages, collate
from gramgan_plugin.data.workers import WorkerStop
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.registries import lookup
from gramgan_plugin.utils.text import first_line

_SYSTEM_ERROR = re.compile(r"\[Errno (?P<number>\d+)\] (?P<what>[^:]*)(?:: '(?P<file>.*)')?$")


def build_dataset(key: str, options: dict[str, Any]) -> Dataset[Any]:
    """Return a dataset from its option block.

    Raises:
        OptionError: if its type is unknown, or a required key is missing.
    """
    cls = lookup("dataset", options.get("type", ""), f"datasets.{key}.type")
    try:
        # A copy: BasicSR's datasets remove keys from their options.
        return cls({name: dict(v) if isinstance(v, dict) else v for name, v in options.items()})
    except KeyError as error:
        raise OptionError(f"datasets.{key}: {cls.__name__} needs the key {error}") from error
    except (FileNotFoundError, NotADirectoryError, AssertionError, ValueError) as error:
        raise OptionError(f"datasets.{key}: {first_line(error)}") from error


class TrainingData:
    """Endless batches of a training set, starting at any place.

    An unreadable image is logged once and replaced by another; see ``unreadable``.

    Attributes:
        batch_size: images in a batch of this process.
        batches_per_epoch: full batches of this process in one pass over the (enlarged) set.
        size: images in the set.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        options = opt["datasets"].get("train")
        if options is None:
            raise OptionError("datasets.train: missing")
        # First, since a process cannot open an LMDB twice.
        self.fingerprint = fingerprint(options)
        dataset = build_dataset("train", options)
        self.size = len(dataset)  # type: ignore[arg-type]
        if self.size == 0:
            raise OptionError("datasets.train: holds no images")
        factor = 1 if opt["dist"] else max(1, opt["num_gpu"])
        self.batch_size = int(options.get("batch_size_per_gpu", 1)) * factor
        replicas = {"num_replicas": opt["world_size"], "rank": opt["rank"]}
        replicas["ratio"] = int(options.get("dataset_enlarge_ratio", 1))
        if isinstance(dataset, StreamedSRDataset):
            self.sampler: SeededSampler = dataset.make_sampler(opt["manual_seed"], **replicas)
        else:
            self.sampler = SeededSampler(self.size, opt["manual_seed"], **replicas)
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
        """Return (epoch, batch in the epoch) after ``iteration`` iterations with this data and batch size."""
        return divmod(iteration, self.batches_per_epoch)

    def batches(self, epoch: int, batch: int = 0) -> Iterator[tuple[int, int, Any]]:
        """Yield (epoch, index of the batch in its epoch, data), without end.

        Args:
            epoch: the first batch's epoch.
            batch: its index in the epoch; ``batches_per_epoch`` is the next epoch's first.

        Raises:
            TrainingStopped: if more images are unreadable than ``datasets.train.max_unreadable`` allows.
            ValueError: if the epoch has no such batch.
        """
        if epoch < 0 or not 0 <= batch <= self.batches_per_epoch:
            raise ValueError(f"epoch {epoch}, batch {batch}: an epoch has {self.batches_per_epoch} batches")
        return self._from(epoch + batch // self.batches_per_epoch, batch % self.batches_per_epoch)

    def facts(self) -> dict[str, Any]:
        """Return what, besides the seed, determines the batches; plain types, for checkpoints."""
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
        worker_stop = WorkerStop()
        # One iterator for all epochs, so that loading does not stop between them.
        loader = iter(
            DataLoader(
                self.dataset,
                batch_sampler=self._indices(epoch, batch),
                num_workers=self.workers,
                collate_fn=collate,
                worker_init_fn=worker_stop.worker_init() if self.workers else None,
                pin_memory=self.pin_memory,
                # Otherwise the base seed comes from the global generator, and a resumed run draws one more number.
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
            del loader  # the last reference: its workers end regularly
            worker_stop.end_workers()

    def _indices(self, epoch: int, batch: int) -> Iterator[list[SampleIndex]]:
        while True:
            self.sampler.set_epoch(epoch, start=batch * self.batch_size)
            samples = iter(self.sampler)
            for _ in range(batch, self.batches_per_epoch):
                yield list(islice(samples, self.batch_size))
            epoch, batch = epoch + 1, 0


def _from_a_worker(error: UserError | OSError) -> UserError | OSError:
    """Return the original error; a worker process wraps its message in a traceback."""
    lines = str(error).strip().splitlines()
    if not lines or "DataLoader worker process" not in lines[0]:
        return error
    if isinstance(error, UserError):
        kind = type(error)
        return kind(lines[-1].removeprefix(f"{kind.__module__}.{kind.__qualname__}: "))
    system = _SYSTEM_ERROR.search(lines[-1])
    return OSError(int(system["number"]), system["what"], system["file"]) if system else error


def build_test_loaders(opt: dict[str, Any], phase: str) -> list[DataLoader[Any]]:
    """Return loaders of single images for a phase's datasets (``val``, ``test``), in the order of their keys."""
    loaders = []
    for key, options in sorted(opt["datasets"].items()):
        if options["phase"] == phase:
            dataset = build_dataset(key, options)
            loaders.append(DataLoader(dataset, batch_size=1, shuffle=False, num_workers=0))
    return loaders
