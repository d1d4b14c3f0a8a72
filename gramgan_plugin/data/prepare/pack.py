"""From photos to a pair of LMDBs of GT and LQ sub-images, and whole held-out pairs for testing."""

import json
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from gramgan_plugin import __version__
from gramgan_plugin.data.prepare.cut import Cutter
from gramgan_plugin.data.prepare.data_set import GT, DataSet
from gramgan_plugin.data.prepare.encode import Encoding
from gramgan_plugin.data.prepare.failures import TerminatedError
from gramgan_plugin.data.prepare.folders import Photo
from gramgan_plugin.data.prepare.plan import Entry, FindLq, Plan, Settings, check_usable, make_plan, refusal
from gramgan_plugin.data.prepare.presets import Preset, expected_sub_images, preset_of
from gramgan_plugin.data.prepare.staging import Staging, check_free, staging
from gramgan_plugin.data.progress import tracked
from gramgan_plugin.data.threads import threads_for
from gramgan_plugin.errors import UserError
from gramgan_plugin.files import real_path
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC

FACTS = "dataset.json"


@dataclass
class Report:
    """What :func:`prepare_photos` wrote."""

    out: Path
    scale: int
    crop_size: int
    photos: int = 0
    sub_images: int = 0
    held_out: int = 0
    size_in_bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    expected: int | None = None  # sub-images that a known set gives

    @property
    def gt(self) -> Path:
        """The LMDB of GT sub-images."""
        return self.out / GT

    @property
    def lq(self) -> Path:
        """The LMDB of LQ sub-images."""
        return self.out / f"LQ_x{self.scale}.lmdb"


def prepare_photos(
    photos: Sequence[Photo],
    out: Path,
    *,
    scale: int = 4,
    crop_size: int = 192,
    step: int = 240,
    thresh_size: int = 0,
    max_per_photo: int | None = None,
    encoding: Encoding | None = None,
    as_stored: bool = False,
    lq_kind: str = MATLAB_BICUBIC,
    find_lq: FindLq | None = None,
    hold_out: Collection[str] = (),
    form: str = "folder",
    workers: int | None = None,
    overwrite: bool = False,
    on_error: str = "stop",
    progress: bool = True,
) -> Report:
    """Cut photos into sub-images, make or take their LQ, and pack both as LMDBs; write held-out photos whole.

    LQ is MATLAB's bicubic of the whole photo, mod-cropped to the scale and rounded to 8 bits, and is cut
    afterwards, so that sub-images have no border of their own. ``out`` appears only when all is written. When this
    is interrupted, the next call with the same photos and options goes on where it was.

    Args:
        photos: name and file of each; numbered from 1 in the order of the names.
        out: folder to write: ``GT.lmdb``, ``LQ_xS.lmdb``, ``names.jsonl``, ``dataset.json``, ``test/GT``,
            ``test/LQ_xS``.
        scale: factor between GT and LQ.
        crop_size: side of a GT sub-image in pixels, a multiple of ``scale``.
        step: pixels from one sub-image to the next, a multiple of ``scale``.
        thresh_size: pixels at the far border that may go unused.
        max_per_photo: the most sub-images that one photo gives, spread evenly over it; None for all.
        encoding: of sub-images; PNG, quick to read, if None.
        as_stored: take colours as they are stored, not as a photo's profile means them.
        lq_kind: of the LQ that is made: ``matlab-bicubic``, or ``matlab-uint8``, as EDSR's benchmark sets have it.
        find_lq: gives the LQ file by a photo's name, or raises a ``PhotoError``; None if LQ is to be made.
        hold_out: photos for testing, by name or by name without suffix.
        form: what the set is called in ``dataset.json``.
        workers: threads; None for one on each processor. They change nothing in what is written.
        overwrite: replace an earlier ``out``.
        on_error: ``stop`` (write nothing) or ``skip`` photos that cannot be decoded or are too small.
        progress: report on stderr.

    Raises:
        UserError: for unusable options or photos, a taken ``out``, a full disk.
        Preempted: after SIGTERM.
    """
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error: 'stop' or 'skip', got {on_error!r}")
    threads = threads_for(workers)
    grid = Preset(crop_size, step, thresh_size)
    settings = Settings(scale, grid, max_per_photo, encoding or Encoding(), as_stored, lq_kind)
    settings.check()
    check_free(out, overwrite)
    _check_not_inside(photos, out, overwrite)
    plan = make_plan(photos, settings, hold_out, find_lq)
    check_usable(plan, len(photos), on_error)
    report = Report(
        out, scale, crop_size, skipped=list(plan.refused), expected=expected_sub_images(form, settings.grid)
    )
    with staging(out, overwrite, plan.job) as stage:
        data_set = DataSet(stage.path, settings)
        try:
            with sigterm_raises():
                _pack(plan, data_set, stage, _Run(len(photos), threads, on_error, progress, out))
            _finish(data_set, stage, report, form, find_lq is not None)
        except BaseException:
            data_set.discard()
            raise
        report.size_in_bytes = sum(path.stat().st_size for path in stage.path.rglob("[!.]*") if path.is_file())
    return report


@dataclass
class _Run:
    total: int
    workers: int
    on_error: str
    progress: bool
    out: Path


def _pack(plan: Plan, data_set: DataSet, stage: Staging, run: _Run) -> None:
    """Pack what is not packed yet; the photos' own faults are told together at the end."""
    counts, total = data_set.counts, len(plan.entries)
    stage.worth = lambda: f"{counts.done} of {total} photos are packed" if counts.done else ""
    if data_set.resumed:
        print(f"{run.out}: going on with {stage.path.name}, {stage.worth()}", file=sys.stderr)
    cutter = Cutter(plan.settings, run.workers)
    results = cutter.results(plan.entries[counts.done :])
    problems: list[tuple[str, str]] = []
    try:
        for cuts in _tracked(results, plan.entries, counts.done, run.progress):
            if cuts.problem is not None and run.on_error == "stop":
                problems.append((cuts.entry.name, cuts.problem))
                cutter.only_check()  # nothing will be written, but all that is wrong is told at once
            elif not problems:
                data_set.add(cuts)
    finally:
        results.close()
    if problems:
        raise refusal(problems, run.total)
    data_set.commit()
    if not counts.sub_images:
        raise UserError(f"none of the {run.total} photos can be used, first: {counts.skipped[0][1]}")


def _tracked(results: Iterator[Any], entries: Sequence[Entry], done: int, show: bool) -> Iterator[Any]:
    for _ in tracked(entries[done:], "photo", show):
        yield next(results)


def _finish(data_set: DataSet, stage: Staging, report: Report, form: str, lq_given: bool) -> None:
    counts, settings = data_set.counts, data_set.settings
    report.photos, report.sub_images, report.held_out = counts.photos, counts.sub_images, counts.held_out
    report.skipped = sorted(report.skipped + counts.skipped)
    lq = "given" if lq_given else settings.lq_kind
    data_set.finish({"scale": settings.scale, "encoding": settings.encoding.name}, {"lq": lq})
    facts = {
        "format": 1,
        "made_by": f"gramgan-plugin {__version__}",
        "form": form,
        "scale": settings.scale,
        **settings.grid._asdict(),
        "preset": preset_of(settings.grid),
        "max_per_photo": settings.most,
        "encoding": settings.encoding.name,
        "colours": "as stored" if settings.as_stored else "sRGB",
        "photos": counts.photos,
        "held_out": counts.held_out,
        "sub_images": counts.sub_images,
        "expected": report.expected,
        "lq": lq,
        "skipped": report.skipped,
    }
    (stage.path / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="ascii")


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises a :class:`TerminatedError` in the block, if this is the main thread and nobody else wants it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_not_inside(photos: Sequence[Photo], out: Path, overwrite: bool) -> None:
    place = real_path(out)
    if overwrite and any(place in real_path(path).parents for _, path in photos):
        raise UserError(f"{out}: holds the photos themselves, so it is not replaced; choose another --out")
