"""Collect suitable training photos from folders, archives and lists of URLs: ``basicsr prepare collect``."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.prepare.collect.criteria import Criteria, Measured, Verdict, judge
from gramgan_plugin.prepare.collect.html_report import write_report
from gramgan_plugin.prepare.collect.keeping import Kept, kept_name, set_aside, take_back, write_kept
from gramgan_plugin.prepare.collect.measured_photos import NAME, MeasuredPhotos
from gramgan_plugin.prepare.collect.measuring import Measuring
from gramgan_plugin.prepare.collect.photo_sources import Archive, Listing, SourcePhoto, list_sources
from gramgan_plugin.prepare.collect.records import Result, write_records
from gramgan_plugin.prepare.collect.urls import fetch
from gramgan_plugin.utils.download.limits import Network
from gramgan_plugin.utils.io import expanded

PHOTOS, DOWNLOADS, REMOVED = "photos", "downloads", "removed"


@dataclass(frozen=True)
class CollectOptions:
    """Settings of a collection.

    Attributes:
        workers: number of threads that measure and write.
        connections: number of simultaneous downloads.
        licence: licence of photos for which a list names none.
        strip_metadata: remove EXIF and other metadata from copied photos; re-encoded ones have none.
        on_error: "skip" files that are not available or not photos, or "stop" at the first.
        shown: photos of each result in the report.
        progress: report on stderr.
    """

    workers: int = 1
    connections: int = 4
    licence: str = ""
    strip_metadata: bool = False
    on_error: str = "skip"
    shown: int = 100
    progress: bool = True


DEFAULT_CRITERIA, DEFAULT_OPTIONS = Criteria(), CollectOptions()


@dataclass
class Outcome:
    """The result of :func:`collect_photos`.

    Attributes:
        out: the folder.
        counts: number of photos by result: "kept", or a key of ``criteria.REASONS``.
        failed: name and reason of what was not available.
        set_aside: number of photos of earlier runs that this run does not keep.
        rewritten: number of photos that were re-encoded instead of copied.
        with_exif: number of copied photos that contain EXIF data.
    """

    out: Path
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    set_aside: int = 0
    rewritten: int = 0
    with_exif: int = 0


def collect_photos(
    sources: Sequence[Path],
    out: Path,
    criteria: Criteria = DEFAULT_CRITERIA,
    network: Network | None = None,
    options: CollectOptions = DEFAULT_OPTIONS,
) -> Outcome:
    """Collect photos, drop those that are unsuitable for training, and record why.

    The result depends on these sources and criteria only, not on earlier runs. Their downloads and measurements are
    reused, so that changed criteria take seconds. Photos of earlier runs that this run does not keep are moved to
    ``out/removed``.

    Args:
        sources: folders, archives, photos, lists of URLs; of equal photos the first is kept.
        out: ``photos/``, ``collected.jsonl``, ``sources.csv``, ``report.html``; for reruns ``measured.jsonl``,
            ``downloads/``, ``thumbnails/``.
        criteria: the limits for photos.
        network: the limits for downloads.
        options: threads, errors, the report.

    Raises:
        UserError: if a source is missing, the folder was not made by this command or is in use, the disk is full, or,
            with ``on_error="stop"``, a file is not available or not a photo.
    """
    criteria.check()
    out = expanded(out)
    with _own_folder(out):
        listing = list_sources(sources, out, out / DOWNLOADS, options.licence)
        with closing(MeasuredPhotos(out)) as measured:
            return _Collecting(out, listing, measured, criteria, network or Network(), options).run()


class _Collecting:
    """The stages of a collection."""

    def __init__(
        self,
        out: Path,
        listing: Listing,
        measured: MeasuredPhotos,
        criteria: Criteria,
        network: Network,
        options: CollectOptions,
    ) -> None:
        self.out, self.listing, self.measured = out, listing, measured
        self.criteria, self.network, self.options = criteria, network, options
        self.stop = options.on_error == "stop"
        self.outcome = Outcome(out)
        self.results: list[Result] = []

    def run(self) -> Outcome:
        urls = [item for item in self.listing.items if isinstance(item, SourcePhoto) and item.url]
        unfetched = self._download([entry for entry in urls if entry.key not in self.measured.photos])
        measuring = Measuring(self.out, self.measured, self.options.workers, self.stop, self.options.progress)
        found = measuring.run([item for item in self.listing.items if item.key not in unfetched])
        photos = [self.measured.photos[entry.key] for entry in found]
        verdicts = judge([entry.name for entry in found], photos, self.criteria)
        self._keep(found, photos, verdicts)
        for entry in urls:
            if entry.key in unfetched:
                self._add(entry, Verdict("failed", unfetched[entry.key]))
        for name, reason in (*self.listing.failed, *measuring.failed):
            self.results.append(Result(name, Verdict("failed", reason)))
        return self._report()

    def _download(self, entries: Sequence[SourcePhoto]) -> dict[str, str]:
        """Download what is missing; return the reason of each failure by key."""
        if self.stop and self.listing.failed:
            raise UserError("{}: {}; remove it, or pass --on-error skip".format(*self.listing.failed[0]))
        options, keys = self.options, {entry.url: entry.key for entry in entries}
        failed = fetch(list(keys), self.out / DOWNLOADS, self.network, options.connections, options.progress, self.stop)
        for url, reason in failed.items():
            if self.stop:
                raise UserError(f"{url}: {reason}; remove it, or pass --on-error skip")
        return {keys[url]: reason for url, reason in failed.items()}

    def _keep(self, found: Sequence[SourcePhoto], photos: Sequence[Measured], verdicts: Sequence[Verdict]) -> None:
        """Write the kept photos, and record every photo's result."""
        options, folder = self.options, self.out / PHOTOS
        kept = [
            Kept(entry, photo, kept_name(entry, photo, options.strip_metadata))
            for entry, photo, verdict in zip(found, photos, verdicts, strict=True)
            if verdict.reason is None
        ]
        take_back(folder, [item.name for item in kept], self.out / REMOVED)
        # A download may have been deleted meanwhile; only then is it needed again.
        problems = self._download([k.entry for k in kept if k.entry.url and not (folder / k.name).is_file()])
        kept = [item for item in kept if item.entry.key not in problems]
        archives = [item for item in self.listing.items if isinstance(item, Archive)]
        unwritten = write_kept(kept, archives, folder, options.workers, options.strip_metadata, options.progress)
        for key in unwritten:
            self.measured.forget(key)
        problems |= unwritten
        names = {item.entry.key: item.name for item in kept if item.entry.key not in problems}
        self.outcome.set_aside = set_aside(folder, frozenset(names.values()), self.out / REMOVED)
        for entry, photo, verdict in zip(found, photos, verdicts, strict=True):
            if entry.key in problems and verdict.reason is None:
                self._add(entry, Verdict("failed", problems[entry.key]), photo)
            else:
                self._add(entry, verdict, photo, names.get(entry.key))

    def _add(
        self, entry: SourcePhoto, verdict: Verdict, photo: Measured | None = None, kept_as: str | None = None
    ) -> None:
        result = Result(entry.name, verdict, photo, entry.url, entry.source, entry.licence)
        result.kept_as = kept_as
        self.results.append(result)

    def _report(self) -> Outcome:
        outcome, results = self.outcome, self.results
        outcome.counts = Counter(result.verdict.reason or "kept" for result in results)
        outcome.failed = [(r.name, r.verdict.detail) for r in results if r.verdict.reason == "failed"]
        kept = [result.photo for result in results if result.kept_as is not None and result.photo is not None]
        outcome.rewritten = sum(photo.rewrite is not None for photo in kept)
        if not self.options.strip_metadata:
            outcome.with_exif = sum(photo.exif and photo.rewrite is None for photo in kept)
        write_records(self.out, results)
        write_report(self.out, results, self.criteria, self.options.shown)
        return outcome


@contextmanager
def _own_folder(out: Path) -> Iterator[None]:
    """Make or check the folder, and lock it for this run."""
    with file_errors(out):
        if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / NAME).exists())):
            raise UserError(f"{out}: contains other files than collected photos; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        (out / NAME).touch()
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{out}: another run is collecting into it; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()
