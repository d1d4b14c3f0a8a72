"""Upscale many pictures: reading and writing in threads, pictures of one size in batches, failures one by one."""

import errno
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from gramgan_plugin.data.photo_headers import PhotoError
from gramgan_plugin.data.photos import MAX_PIXELS
from gramgan_plugin.errors import UserError, is_out_of_memory, os_problem
from gramgan_plugin.inference.inputs import Job
from gramgan_plugin.inference.picture_batches import ALPHA_METHODS, Upscale, batches, memory_of, upscale_pictures
from gramgan_plugin.inference.picture_files import Picture, read_picture
from gramgan_plugin.inference.picture_writing import check_fits, write_picture
from gramgan_plugin.inference.resize import scaled_size
from gramgan_plugin.inference.transparency import fill_transparent
from gramgan_plugin.utils.progress import tracked_of
from gramgan_plugin.utils.system import available_memory
from gramgan_plugin.utils.text import first_line, printable
from gramgan_plugin.utils.threads import in_order, threads_for

MOST_THREADS = 4
UNKNOWN_MEMORY = 2**32  # bytes; where the system does not say what is free
# Errors that the next file would meet, too.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True)
class Settings:
    """How pictures are upscaled and written.

    Attributes:
        scale: side of a result divided by side of its input.
        batch_size: pictures of one size that are upscaled at once, at most.
        quality: 1 to 100 for JPEG, WebP and AVIF; their default if None.
        skip_existing: leave out inputs whose result exists.
        alpha: upscale transparency by the ``network``, or ``bicubic``.
        max_pixels: larger pictures are refused.
        workers: threads that read, and as many that write; the number of cores if None. At most ``MOST_THREADS``.
        show: report the progress.

    Raises:
        UserError: if a value is out of its range.
    """

    scale: float
    batch_size: int = 1
    quality: int | None = None
    skip_existing: bool = False
    alpha: str = "network"
    max_pixels: int = MAX_PIXELS
    workers: int | None = None
    show: bool = True

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: must be from 1 to 100")
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size}: must be at least 1")
        if self.alpha not in ALPHA_METHODS:
            raise UserError(f"--alpha {self.alpha!r}: must be one of {', '.join(ALPHA_METHODS)}")


@dataclass
class Summary:
    """What was done.

    Attributes:
        written: number of results.
        skipped: number of inputs whose result existed.
        failed: inputs that could not be upscaled, with the reason in one printable line.
        megapixels: of the results.
    """

    written: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    megapixels: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or 3 if some failed."""
        return 3 if self.failed else 0

    def fail(self, source: Path, reason: str) -> None:
        """Record an input that could not be upscaled; the message may begin with its name."""
        self.failed.append((source, printable(reason.removeprefix(f"{source}: "))))

    def lines(self) -> list[str]:
        """Return the summary, and a line for each input that failed."""
        counts = f"{self.written} written ({self.megapixels:.1f} megapixels)"
        counts += f", {self.skipped} skipped (the result exists)" if self.skipped else ""
        counts += f", {len(self.failed)} failed:" if self.failed else ""
        return [counts, *(f"{printable(str(path))}: {reason}" for path, reason in self.failed)]


class _Item(NamedTuple):
    """A picture, before or after upscaling, or the reason why there is none."""

    job: Job
    picture: Picture | None
    reason: str = ""


class _Memory:
    """Makes the network wait while the results that are not written yet take too much memory.

    Args:
        most: bytes; a single result may take more.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self.changed = threading.Condition()

    def take(self, amount: int) -> None:
        with self.changed:
            while self.used and self.used + amount > self.most:
                self.changed.wait()
            self.used += amount

    def give_back(self, amount: int) -> None:
        with self.changed:
            self.used -= amount
            self.changed.notify()


def run_jobs(jobs: Sequence[Job], upscale: Upscale, settings: Settings) -> Summary:
    """Upscale pictures; what fails is recorded, and the rest goes on.

    Reading and writing run in threads beside ``upscale``, which is called in this thread. Results that wait to be
    written take at most half of the free memory. Pictures of one size are batched, so that the order may change.

    Args:
        jobs: from ``find_inputs``, without videos.
        upscale: takes (H, W, C) arrays of one size and type, uint8 or uint16, with C = 1 (gray) or 3 (RGB), and returns
            them ``settings.scale`` times as large. Transparency comes as gray.
        settings: see there.

    Raises:
        UserError: if the disk is full or read-only, or there are too many open files.
    """
    threads = min(threads_for(settings.workers), MOST_THREADS)
    todo = [job for job in jobs if job.problem or not (settings.skip_existing and job.target.exists())]
    summary = Summary(skipped=len(jobs) - len(todo))
    memory = _Memory((available_memory() or UNKNOWN_MEMORY) // 2)
    with (
        closing(in_order(lambda job: _read(job, settings), todo, threads, ahead=threads + 1)) as loaded,
        closing(_upscaled((item for _, item in loaded), upscale, settings, memory)) as items,
        closing(in_order(lambda item: _write(item, settings, memory), items, threads)) as done,
    ):
        for item, reason in tracked_of(done, len(todo), "picture", settings.show):
            if item.picture is None or reason:
                summary.fail(item.job.source, reason or item.reason)
            else:
                summary.written += 1
                summary.megapixels += item.picture.pixels[..., 0].size / 1e6
    return summary


def reason_of(error: Exception) -> str | None:
    """Return why one input failed, in a line; None for bugs, and for errors that the next input would meet, too."""
    cause = error.__cause__ if isinstance(error, UserError) else error
    if isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE:
        return None
    if isinstance(error, PhotoError | UserError):
        return first_line(error)
    if is_out_of_memory(error):
        return "out of memory"
    return os_problem(error) or error.strerror if isinstance(error, OSError) else None


def _failure(job: Job, error: Exception) -> _Item:
    reason = reason_of(error)
    if reason is None:
        raise error
    return _Item(job, None, reason)


def _read(job: Job, settings: Settings) -> _Item:
    if job.problem:
        return _Item(job, None, job.problem)
    try:
        picture = read_picture(job.source, settings.max_pixels)
        height, width = scaled_size(picture.pixels.shape, settings.scale)
        check_fits(job.target, width, height)
        if picture.alpha is not None:
            picture = replace(picture, pixels=fill_transparent(picture.pixels, picture.alpha))
        return _Item(job, picture)
    except Exception as error:
        return _failure(job, error)


def _upscaled(items: Iterable[_Item], upscale: Upscale, settings: Settings, memory: _Memory) -> Generator[_Item]:
    for batch in batches(items, settings.batch_size):
        pictures = [item.picture for item in batch if item.picture is not None]
        needed = round(settings.scale**2 * sum(map(memory_of, pictures)))
        memory.take(needed)
        results = _upscaled_batch(batch, upscale, settings) if pictures else batch
        memory.give_back(needed - sum(memory_of(item.picture) for item in results if item.picture is not None))
        yield from results


def _upscaled_batch(batch: Sequence[_Item], upscale: Upscale, settings: Settings) -> list[_Item]:
    """Return the results; if the batch fails, each picture alone, so that only the cause fails."""
    pictures = [item.picture for item in batch if item.picture is not None]
    try:
        results = upscale_pictures(pictures, upscale, settings.scale, settings.alpha)
        return [item._replace(picture=result) for item, result in zip(batch, results, strict=True)]
    except Exception as error:
        failure = _failure(batch[0].job, error)
    if len(batch) == 1:
        return [failure]
    return [result for item in batch for result in _upscaled_batch([item], upscale, settings)]


def _write(item: _Item, settings: Settings, memory: _Memory) -> str:
    """Write a result; return why that failed, or ""."""
    if item.picture is None:
        return item.reason
    try:
        write_picture(item.picture, item.job.target, settings.quality)
        return ""
    except Exception as error:
        return _failure(item.job, error).reason
    finally:
        memory.give_back(memory_of(item.picture))
