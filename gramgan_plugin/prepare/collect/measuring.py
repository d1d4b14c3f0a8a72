"""Read and measure every photo that has not been measured yet, and record it: stage two of collecting."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from gramgan_plugin.data.photo_headers import open_regular
from gramgan_plugin.data.photos import PhotoError
from gramgan_plugin.errors import UserError, os_problem
from gramgan_plugin.prepare.archives import images_in
from gramgan_plugin.prepare.collect.criteria import Measured
from gramgan_plugin.prepare.collect.examine import examine
from gramgan_plugin.prepare.collect.measured_photos import MeasuredPhotos
from gramgan_plugin.prepare.collect.photo_sources import Archive, SourcePhoto
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.progress import SECONDS_BETWEEN_LINES, tracked
from gramgan_plugin.utils.text import printable
from gramgan_plugin.utils.threads import in_order

T = TypeVar("T")

LARGEST = 2 * 10**9  # bytes; larger files are not read into memory


class CannotReadError(Exception):
    """The reason why a file cannot be read."""


class _Found(NamedTuple):
    """A photo's measurements and thumbnail, or why it is not available."""

    measured: Measured | None
    thumbnail: bytes | None = None
    reason: str = ""


def read_file(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        CannotReadError: for any problem, so that collecting continues with other files.
    """
    try:
        with open_regular(path) as file:
            if file.seek(0, 2) > LARGEST:
                raise CannotReadError(f"above {LARGEST / 1e9:g} GB, too large for a photo")
            file.seek(0)
            return file.read()
    except PhotoError as error:
        raise CannotReadError(str(error)) from error
    except OSError as error:
        raise CannotReadError(os_problem(error, path) or str(error.strerror)) from error


def thumbnail_file(folder: Path, sha256: str) -> Path:
    """Return the file of a photo's thumbnail, in one of 256 folders."""
    return folder / "thumbnails" / sha256[:2] / f"{sha256[:16]}.jpg"


class Measuring:
    """Measures photos in threads and records them in the order of the sources.

    Args:
        folder: the folder for thumbnails.
        measured: the photos measured so far, to read and extend.
        workers: number of threads.
        stop: stop at the first file that is not available or not a photo.
        progress: report on stderr.

    Attributes:
        failed: names and reasons of what was not available, in the order of the sources.
    """

    def __init__(self, folder: Path, measured: MeasuredPhotos, workers: int, stop: bool, progress: bool) -> None:
        self.folder, self.measured, self.workers, self.stop, self.progress = folder, measured, workers, stop, progress
        self.failed: list[tuple[str, str]] = []

    def run(self, items: Sequence[SourcePhoto | Archive]) -> list[SourcePhoto]:
        """Measure the photos that have not been measured yet.

        Returns:
            All measured photos, from this run or earlier ones, in the order of the sources.

        Raises:
            UserError: if ``stop`` and something failed, or the disk cannot be written.
        """
        plain = [item for item in items if isinstance(item, SourcePhoto)]
        self._plain([entry for entry in plain if entry.key not in self.measured.photos])
        found: list[SourcePhoto] = []
        for item in items:
            if isinstance(item, Archive):
                found += self._archive(item)
            elif item.key in self.measured.photos:
                found.append(item)
        return found

    def _plain(self, entries: Sequence[SourcePhoto]) -> None:
        with closing(in_order(_examine_file, entries, self.workers)) as results:
            for _ in tracked(entries, "photo", self.progress):
                self._record(*next(results))

    def _archive(self, archive: Archive) -> list[SourcePhoto]:
        """Measure an archive's photos in the archive's order; of a damaged one, those before the damage."""
        if archive.key not in self.measured.archives:
            self._read_archive(archive)
        members, refused = self.measured.archives.get(archive.key, ([], []))
        if archive.key not in self.measured.archives:
            begin = f"{archive.key}|"
            members = [key.removeprefix(begin) for key in self.measured.photos if key.startswith(begin)]
        for name, reason in refused:
            self._fail(f"{archive.path}!{name}", reason)
        entries = [archive.member(name) for name in members]
        return [entry for entry in entries if entry.key in self.measured.photos]

    def _read_archive(self, archive: Archive) -> None:
        members: list[str] = []
        refused: list[tuple[str, str]] = []
        problem: list[str] = []
        pending = self._members(archive, members, lambda name, reason: refused.append((name, reason)), problem)
        with closing(in_order(_examine_bytes, pending, self.workers)) as results:
            for (entry, _), found in _counted(results, archive.path, self.progress):
                self._record(entry, found)
        if problem:
            self._fail(str(archive.path), problem[0])
        else:
            self.measured.end_archive(archive.key, members, refused)

    def _members(
        self, archive: Archive, members: list[str], refuse: Callable[[str, str], None], problem: list[str]
    ) -> Iterator[tuple[SourcePhoto, bytes]]:
        """Yield the photos of an archive that have not been measured yet; add all names to ``members``."""
        try:
            for name, data in images_in(archive.path, on_refused=refuse):
                members.append(name)
                entry = archive.member(name)
                if entry.key not in self.measured.photos:
                    yield entry, data
        except UserError as error:
            problem.append(str(error).removeprefix(f"{archive.path}: "))

    def _record(self, entry: SourcePhoto, found: _Found) -> None:
        if found.measured is None:
            self._fail(entry.name, found.reason)
            return
        if found.measured.unreadable is not None and self.stop:
            raise UserError(f"{entry.name}: {found.measured.unreadable}; remove it, or pass --on-error skip")
        if found.thumbnail is not None:
            replace_file(thumbnail_file(self.folder, found.measured.sha256), found.thumbnail)
        self.measured.add(entry.key, found.measured)

    def _fail(self, name: str, reason: str) -> None:
        if self.stop:
            raise UserError(f"{name}: {reason}; remove it, or pass --on-error skip")
        self.failed.append((name, reason))


def _counted(results: Iterator[T], archive: Path, show: bool) -> Iterator[T]:
    """Report now and then the number of photos so far; an archive's total is unknown."""
    said = time.monotonic()
    for count, result in enumerate(results, start=1):
        yield result
        if show and time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"{printable(str(archive))}: {count} photos so far", file=sys.stderr, flush=True)


def _examine_file(entry: SourcePhoto) -> _Found:
    try:
        assert entry.path is not None
        return _Found(*examine(read_file(entry.path)))
    except CannotReadError as error:
        return _Found(None, reason=str(error))


def _examine_bytes(member: tuple[SourcePhoto, bytes]) -> _Found:
    return _Found(*examine(member[1]))
