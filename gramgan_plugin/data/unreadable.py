"""Handle unreadable training images: replace them, log and count them, and end the run if there are too many."""

import errno
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import lmdb
import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from gramgan_plugin.data.seeded import SampleIndex, SeededDataset
from gramgan_plugin.errors import OptionError, Preempted, TrainingStopped, UserError
from gramgan_plugin.utils.text import first_line, printable

MAX_UNREADABLE = 0.01  # default of datasets.train.max_unreadable
TRIES = 10  # different samples; if all of them fail, the images are not the cause
OPENCV_ERRORS = 2
REPLACEMENT_STREAM = 2  # first element of the spawn key, beside those of `seeded`

# Errors in code or options, and ends of the run. Any other exception of a dataset may be about its image: its type
# depends on the decoder.
_NOT_AN_IMAGE = (
    ImportError,
    MemoryError,
    NameError,
    NotImplementedError,
    OptionError,
    Preempted,
    RecursionError,
    TrainingStopped,
    torch.cuda.OutOfMemoryError,
)
_OF_THE_MACHINE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.ENOLCK)
)
# OpenCV, torch and LMDB report it only in the message.
_MACHINE_IN_WORDS = re.compile(
    "|".join(["allocate memory", "not enough memory", "out of memory", "Insufficient memory"])
    + "".join(f"|{re.escape(os.strerror(number))}$" for number in sorted(_OF_THE_MACHINE))
)


class Unreadable(NamedTuple):
    """An unreadable image."""

    number: int  # its index in the dataset
    what: str  # its name and the reason, one printable line


class Sample(NamedTuple):
    """A sample of :class:`SkippingDataset`."""

    value: Any
    unreadable: tuple[Unreadable, ...]  # unreadable samples that it replaces


class Batch(NamedTuple):
    """Collated samples, and the unreadable images that were replaced."""

    data: Any
    unreadable: list[Unreadable]


class SkippingDataset(Dataset[Sample]):
    """A seeded dataset that replaces a sample with an unreadable image by another sample.

    The replacement is a function of (manual_seed, epoch, position), so neither resuming nor the number of workers
    changes it.

    Args:
        dataset: the dataset to read. Any exception makes its image unreadable, except those that cannot be about an
        image: errors in options, missing modules or names, a lack of memory, file handles or disk space.
    """

    def __init__(self, dataset: SeededDataset) -> None:
        self.dataset = dataset
        if hasattr(cv2, "setLogLevel"):
            cv2.setLogLevel(OPENCV_ERRORS)  # its warnings about damaged images name no file

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: SampleIndex) -> Sample:
        """Return the sample, or its replacement.

        Raises:
            Exception: the first sample's error, if ``TRIES`` different samples (or all that exist) fail.
        """
        failed: list[Unreadable] = []
        first: Exception | None = None
        for index in self._candidates(sample):
            try:
                return Sample(self.dataset[sample._replace(index=index)], tuple(failed))
            except Exception as error:
                if not is_about_an_image(error):
                    raise
                failed.append(Unreadable(index, described(error, self.dataset.dataset, index)))
                first = first or error
        assert first is not None
        if _upstream_reason(first) is not None:  # the original message names no file
            raise UserError(failed[0].what) from first
        raise first

    def _candidates(self, sample: SampleIndex) -> Iterator[int]:
        yield sample.index
        key = (REPLACEMENT_STREAM, sample.epoch, sample.position)
        seed = np.random.SeedSequence(self.dataset.manual_seed, spawn_key=key)
        draw = np.random.RandomState(np.random.MT19937(seed))
        tried = {sample.index}
        while len(tried) < min(TRIES, len(self)):
            index = int(draw.randint(len(self)))
            if index not in tried:
                tried.add(index)
                yield index


def collate(samples: Sequence[Sample]) -> Batch:
    """Collate the values with ``default_collate``, and list the unreadable images apart from them."""
    return Batch(
        default_collate([sample.value for sample in samples]),
        [unreadable for sample in samples for unreadable in sample.unreadable],
    )


class UnreadableImages:
    """The unreadable images of a run; a resumed process counts from 0.

    Args:
        size: number of images in the training set.
        share: the share of them that may be unreadable, 0 to 1.
    """

    def __init__(self, size: int, share: float) -> None:
        self.size = size
        self.share = share
        self.known: dict[int, str] = {}

    def note(self, unreadable: Iterable[Unreadable]) -> None:
        """Log each image that was not logged yet.

        Raises:
            TrainingStopped: if more images are unreadable than ``share`` allows.
        """
        for number, what in unreadable:
            if number in self.known:
                continue
            self.known[number] = what
            count = len(self.known)
            logging.getLogger("basicsr").warning(f"Unreadable training image {count}, another takes its place: {what}")
            if count / self.size > self.share:
                raise TrainingStopped(
                    f"datasets.train: {count} of {self.size} images cannot be read, more than max_unreadable "
                    f"{self.share:g} allows; the last: {what}. Mend or remove them, or raise "
                    "datasets.train.max_unreadable"
                )


def is_about_an_image(error: Exception) -> bool:
    """Return whether a dataset's exception may be about an image, not about options, code, memory or disk space."""
    cause: BaseException | None = error
    while cause is not None:  # our own datasets raise a UserError from the original exception
        if isinstance(cause, _NOT_AN_IMAGE) or (isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE):
            return False
        if isinstance(cause, RuntimeError | cv2.error | lmdb.Error) and _MACHINE_IN_WORDS.search(str(cause)):
            return False
        cause = cause.__cause__
    return True


def described(error: Exception, dataset: Any, index: int) -> str:
    """Return the name of an unreadable image and the reason, in one printable line."""
    if isinstance(error, UserError):
        return printable(str(error))
    name, reason = _name(dataset, index), _upstream_reason(error)
    if isinstance(error, OSError) and error.strerror:
        name, reason = str(error.filename or name), error.strerror
    if reason is None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {first_line(error)}"
    return printable(f"{name}: {reason}")


def _upstream_reason(error: Exception) -> str | None:
    """Return the reason behind an exception of BasicSR's image functions; None for other exceptions."""
    functions = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    if "imfrombytes" in functions:
        return "cannot be decoded as an image"
    if "paired_random_crop" in functions and isinstance(error, ValueError):
        return " ".join(" ".join(map(str, error.args)).split())
    return None


def _name(dataset: Any, index: int) -> str:
    """Return a sample's name: BasicSR's datasets list files in ``paths``, or clips in ``keys``."""
    for attribute in ("paths", "keys"):
        listed = getattr(dataset, attribute, None)
        if isinstance(listed, Sequence) and index < len(listed):
            entry = listed[index]
            names = list(entry.values()) if isinstance(entry, Mapping) else [entry]
            names = [str(name) for name in names if isinstance(name, str | Path)]
            if names:
                return " or ".join(dict.fromkeys(names))
    return f"sample {index}"
