"""Data loaders: seeded for training, so that a place in the data is a number; one image at a time for the rest."""

import re
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from gramgan_plugin.data.seeded import SeededDataset, SeededSampler
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.registration import lookup

_WORKER_PREFIX = f"{UserError.__module__}.{UserError.__qualname__}: "
_SYSTEM_ERROR = re.compile(r"\[Errno (?P<number>\d+)\] (?P<what>[^:]*)(?:: '(?P<file>.*)')?$")


def build_dataset(key: str, options: dict[str, Any]) -> Dataset[Any]:
    """A dataset from its option block.

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
        raise OptionError(f"datasets.{key}: {str(error).splitlines()[0]}") from error


class TrainingData:
    """Endless batches of a training set, from any place in their order.

    Attributes:
        batches_per_epoch: full batches in one pass over the (enlarged) set, of this process.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        options = opt["datasets"].get("train")
        if options is None:
            raise OptionError("datasets.train: missing")
        dataset = build_dataset("train", options)
        if len(dataset) == 0:  # type: ignore[arg-type]
            raise OptionError("datasets.train: holds no images")
        factor = 1 if opt["dist"] else max(1, opt["num_gpu"])
        self.batch_size = int(options.get("batch_size_per_gpu", 1)) * factor
        self.sampler = SeededSampler(
            len(dataset),  # type: ignore[arg-type]
            opt["manual_seed"],
            num_replicas=opt["world_size"],
            rank=opt["rank"],
            ratio=int(options.get("dataset_enlarge_ratio", 1)),
        )
        self.batches_per_epoch = len(self.sampler) // self.batch_size
        if self.batches_per_epoch == 0:
            raise OptionError(
                f"datasets.train: {len(dataset)} images make no batch of {self.batch_size}; "  # type: ignore[arg-type]
                "lower batch_size_per_gpu or raise dataset_enlarge_ratio"
            )
        workers = int(options.get("num_worker_per_gpu", 0)) * factor
        self.loader = DataLoader(
            SeededDataset(dataset, opt["manual_seed"]),
            batch_size=self.batch_size,
            sampler=self.sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=bool(options.get("pin_memory", torch.cuda.is_available())),
            drop_last=True,
        )
        self.size = len(dataset)  # type: ignore[arg-type]

    def batches(self, iteration: int) -> Any:
        """Yield (epoch, batch) for the iterations after ``iteration`` (0 for a fresh start), without end."""
        epoch, batch = divmod(iteration, self.batches_per_epoch)
        while True:
            self.sampler.set_epoch(epoch, start=batch * self.batch_size)
            try:
                for data in self.loader:
                    yield epoch, data
            except (UserError, OSError) as error:
                told = _told_by_a_worker(error)
                if told is error:
                    raise
                raise told from error
            epoch, batch = epoch + 1, 0


def _told_by_a_worker(error: UserError | OSError) -> UserError | OSError:
    """The error itself; from a worker process its message comes wrapped in that process's traceback."""
    lines = str(error).strip().splitlines()
    if not lines or "DataLoader worker process" not in lines[0]:
        return error
    if isinstance(error, UserError):
        return UserError(lines[-1].removeprefix(_WORKER_PREFIX))
    system = _SYSTEM_ERROR.search(lines[-1])
    return OSError(int(system["number"]), system["what"], system["file"]) if system else error


def build_test_loaders(opt: dict[str, Any], phase: str) -> list[DataLoader[Any]]:
    """A loader of single images for each dataset whose key begins with ``phase`` (``val``, ``test``), in key order."""
    loaders = []
    for key, options in sorted(opt["datasets"].items()):
        if options["phase"] == phase:
            dataset = build_dataset(key, options)
            loaders.append(DataLoader(dataset, batch_size=1, shuffle=False, num_workers=0))
    return loaders
