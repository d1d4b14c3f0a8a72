"""Pack photos into a pair of LMDBs of GT and LQ sub-images, with whole held-out pairs for testing."""

import json
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gramgan_plugin.data.photos import PhotoError
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.cut import Cutter
from gramgan_plugin.prepare.data_set import GT, DataSet
from gramgan_plugin.prepare.detail import MEASURE, Selection, save_selection, select
from gramgan_plugin.prepare.folders import Photo
from gramgan_plugin.prepare.plan import (
    WHOLE,
    Entry,
    FindLq,
    Plan,
    Settings,
    check_usable,
    key_of,
    make_plan,
    refusal,
)
from gramgan_plugin.prepare.prepared_folder import DATA_SET
from gramgan_plugin.prepare.presets import expected_sub_images, preset_of
from gramgan_plugin.prepare.shard_writer import check_litdata, write_shards
from gramgan_plugin.utils.interruptions import sigterm_raises
from gramgan_plugin.utils.io import real_path, sync
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.staging import Staging, check_free, moved_aside, staging, unfinished
from gramgan_plugin.utils.threads import threads_for
from gramgan_plugin.version import __version__

FACTS = "dataset.json"
SELECTION = "detail.png"
SHARDS = "shards"


@dataclass
class Report:
    """The result of :func:`prepare_photos`."""

    out: Path
    scale: int
    crop_size: int
    photos: int = 0
    sub_images: int = 0
    held_out: int = 0
    size_in_bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    expected: int | None = None  # sub-images of a known set
    selection: Selection | None = None  # by detail
    as_shards: bool = False

    @property
    def gt(self) -> Path:
        """The LMDB of GT sub-images."""
        return self.out / GT

    @property
    def lq(self) -> Path:
        """The LMDB of LQ sub-images."""
        return self.out / f"LQ_x{self.scale}.lmdb"

    @property
    def shards(self) -> Path:
        """The shards, where they were asked for in place of the LMDBs."""
        return self.out / SHARDS


def prepare_photos(
    photos: Sequence[Photo],
    out: Path,
    settings: Settings,
    *,
    find_lq: FindLq | None = None,
    hold_out: Collection[str] = (),
    form: str = "folder",
    workers: int | None = None,
    overwrite: bool = False,
    on_error: str = "stop",
    progress: bool = True,
) -> Report:
    """Cut photos into sub-images, make or read their LQ, and pack both as LMDBs; write held-out photos whole.

    LQ is MATLAB's bicubic of the whole photo, mod-cropped to the scale and rounded to 8 bits. It is cut afterwards, so
    that sub-images have no border effects. ``out`` appears only when it is complete. After an interruption, the next
    call with the same photos and settings resumes the work.

    Args:
        photos: name and file of each; numbered from 1 in the order of the names.
        out: folder to write: ``GT.lmdb``, ``LQ_xS.lmdb``, ``names.jsonl``, ``dataset.json``, ``test/GT``,
            ``test/LQ_xS``.
        settings: how photos become sub-images: scale, grid, encoding, kind of LQ.
        find_lq: returns the LQ file for a photo's name, or raises a ``PhotoError``; None to make LQ.
        hold_out: photos for testing, by name or by name without suffix.
        form: the set's form in ``dataset.json``.
        workers: number of threads; None for one on each processor. The result does not depend on it.
        overwrite: replace an earlier ``out``.
        on_error: ``stop`` (write nothing) or ``skip`` photos that cannot be decoded or are too small.
        progress: report on stderr.

    Raises:
        UserError: for unusable settings or photos, an existing ``out``, a full disk.
        Preempted: after SIGTERM.
    """
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error: 'stop' or 'skip', got {on_error!r}")
    threads = threads_for(workers)
    settings.check()
    check_free(out, DATA_SET, overwrite)
    photos = _without_own(photos, out, overwrite)
    if settings.as_shards:
        check_litdata()
    plan = make_plan(photos, settings, hold_out, find_lq)
    check_usable(plan, len(photos), on_error)
    report = Report(
        out, settings.scale, settings.grid.crop_size, skipped=list(plan.refused), as_shards=settings.as_shards
    )
    whole_set = settings.keep_detailed is None and settings.share == WHOLE
    report.expected = expected_sub_images(form, settings.grid) if whole_set else None
    with staging(out, DATA_SET, overwrite, plan.job) as stage:
        if (stage.path / SHARDS).is_dir():  # the last process ended after it had written them
            _read_facts(stage, report)
        else:
            run = _Run(len(photos), threads, on_error, progress, out)
            _pack_all(plan, stage, run, report, form, find_lq is not None)
        if settings.as_shards:
            _to_shards(stage, report, progress)
        report.size_in_bytes = sum(path.stat().st_size for path in stage.path.rglob("[!.]*") if path.is_file())
    return report


def _pack_all(plan: Plan, stage: Staging, run: "_Run", report: Report, form: str, lq_given: bool) -> None:
    data_set = DataSet(stage.path, plan.settings)
    try:
        with sigterm_raises():
            report.selection = None if data_set.closed else _pack(plan, data_set, stage, run)
        _finish(data_set, stage, report, form, lq_given)
    except BaseException:
        data_set.discard()
        raise


def _to_shards(stage: Staging, report: Report, progress: bool) -> None:
    """Put shards in place of the LMDBs; their folder has its name once it is complete."""
    lmdbs, made = [stage.path / GT, stage.path / report.lq.name], stage.path / SHARDS
    if not made.is_dir():
        unfinished_shards = stage.path / f"{SHARDS}.unfinished"
        with sigterm_raises():
            write_shards(lmdbs[0], lmdbs[1], unfinished_shards, progress=progress)
        unfinished_shards.rename(made)
        sync(stage.path)
    for path in lmdbs:
        shutil.rmtree(path, ignore_errors=True)


@dataclass
class _Run:
    total: int
    workers: int
    on_error: str
    progress: bool
    out: Path


def _pack(plan: Plan, data_set: DataSet, stage: Staging, run: _Run) -> Selection | None:
    """Pack the remaining photos; problems with photos are reported together at the end.

    Returns:
        What was chosen by detail, which has its picture then; None for all.
    """
    counts, total = data_set.counts, len(plan.entries)
    stage.work_done = lambda: f"{counts.done} of {total} photos are packed" if counts.done else ""
    if data_set.resumed:
        print(f"{run.out}: resuming {stage.path.name}, {stage.work_done()}", file=sys.stderr)
    cutter = Cutter(plan.settings, run.workers)
    cutter.selection = _selection(plan, cutter, run.progress)
    results = cutter.results(plan.entries[counts.done :])
    problems: list[tuple[str, str]] = []
    try:
        for cuts in _tracked(results, plan.entries, counts.done, run.progress):
            if cuts.problem is not None and run.on_error == "stop":
                problems.append((cuts.entry.name, cuts.problem))
                cutter.only_check()  # nothing will be written, but all problems are reported together
            elif not problems:
                data_set.add(cuts)
    finally:
        results.close()
    if problems:
        raise refusal(problems, run.total)
    data_set.commit()
    if not counts.sub_images:
        raise UserError(f"none of the {run.total} photos can be used, first: {counts.skipped[0][1]}")
    if cutter.selection is not None:
        _picture(plan, cutter, cutter.selection, stage.path / SELECTION)
    return cutter.selection


def _picture(plan: Plan, cutter: Cutter, selection: Selection, path: Path) -> None:
    entries = {key_of(entry, 0).rpartition("_")[0]: entry for entry in plan.entries if not entry.held}
    images = {}
    for key in selection.examples():
        with suppress(PhotoError):  # the photo has gone in the meantime; the set is whole without its picture
            images[key] = cutter.sub_image(entries[key.rpartition("_")[0]], key)
    save_selection(selection, images, path)


def _selection(plan: Plan, cutter: Cutter, progress: bool) -> Selection | None:
    """Measure all sub-images, and choose; the same again where an interrupted packing is resumed."""
    share, found = plan.settings.keep_detailed, dict[str, float]()
    if share is None:
        return None
    with closing(cutter.details(plan.entries)) as measured:
        for own in _tracked(measured, plan.entries, 0, progress):
            found |= own
    return select(found, share) if found else None


def _tracked(results: Iterator[Any], entries: Sequence[Entry], done: int, show: bool) -> Iterator[Any]:
    for _ in tracked(entries[done:], "photo", show):
        yield next(results)


def _finish(data_set: DataSet, stage: Staging, report: Report, form: str, lq_given: bool) -> None:
    counts, settings, lq = data_set.counts, data_set.settings, "given" if lq_given else data_set.settings.lq_kind
    if data_set.closed:  # the last process ended between closing it and renaming its folder
        _read_facts(stage, report)
        return
    report.photos, report.sub_images, report.held_out = counts.photos, counts.sub_images, counts.held_out
    report.skipped = sorted(report.skipped + counts.skipped)
    facts = {
        "format": 1,
        "made_by": f"gramgan-plugin {__version__}",
        "form": form,
        "scale": settings.scale,
        **settings.grid._asdict(),
        "preset": preset_of(settings.grid),
        "max_per_photo": settings.most,
        "keep_detailed": settings.keep_detailed,
        **({} if report.selection is None else _selection_facts(report.selection)),
        **({} if settings.share == WHOLE else {"share": list(settings.share)}),
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
    data_set.finish({"scale": settings.scale, "encoding": settings.encoding.name}, {"lq": lq})


def _read_facts(stage: Staging, report: Report) -> None:
    found = json.loads((stage.path / FACTS).read_bytes())
    report.photos, report.sub_images, report.held_out = (found[key] for key in ("photos", "sub_images", "held_out"))
    report.skipped = [(name, why) for name, why in found["skipped"]]


def _selection_facts(selection: Selection) -> dict[str, Any]:
    detail = {"measure": MEASURE, "least": selection.least, "sub_images_measured": len(selection.details)}
    return {"detail": detail}


def _without_own(photos: Sequence[Photo], out: Path, overwrite: bool) -> Sequence[Photo]:
    """Leave out what an earlier, unfinished call has written among the photos; refuse to replace the photos."""
    place = real_path(out)
    if overwrite and any(place in real_path(path).parents for _, path in photos):
        raise UserError(f"{out}: contains the photos, so it is not replaced; choose another --out")
    if not any(folder.is_dir() for folder in (unfinished(place), moved_aside(place))):
        return photos
    own = {unfinished(place), moved_aside(place)}
    return [(name, path) for name, path in photos if own.isdisjoint(real_path(path).parents)]
