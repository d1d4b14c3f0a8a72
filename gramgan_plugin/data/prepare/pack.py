"""From photos to a pair of LMDBs of GT and LQ sub-images, and whole held-out pairs for testing."""

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TextIO

import torch

from gramgan_plugin.data.images import Image, encode_png, mod_crop, read_image
from gramgan_plugin.data.lmdb_images import LmdbWriter
from gramgan_plugin.data.prepare.staging import MARKER, check_free, staged_folder
from gramgan_plugin.data.prepare.subimages import check_grid, thinned, windows
from gramgan_plugin.data.progress import printable, tracked
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.matlab_bicubic import lq_levels

Photo = tuple[str, Path]  # name relative to the source, file
NAMED_IN_ERRORS = 10


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

    @property
    def gt(self) -> Path:
        """The LMDB of GT sub-images."""
        return self.out / "GT.lmdb"

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
    compression_level: int = 3,
    hold_out: Collection[str] = (),
    overwrite: bool = False,
    on_error: str = "stop",
    progress: bool = True,
) -> Report:
    """Cut photos into sub-images, make their LQ, and pack both as LMDBs; write held-out photos whole.

    LQ is MATLAB's bicubic of the whole photo, mod-cropped to the scale and rounded to 8 bits, and is cut
    afterwards, so that sub-images have no border of their own. ``out`` appears only when all is written.

    Args:
        photos: name and file of each; numbered from 1 in the order of the names.
        out: folder to write: ``GT.lmdb``, ``LQ_xS.lmdb``, ``names.jsonl``, ``test/GT``, ``test/LQ_xS``.
        scale: factor between GT and LQ.
        crop_size: side of a GT sub-image in pixels, a multiple of ``scale``.
        step: pixels from one sub-image to the next, a multiple of ``scale``.
        thresh_size: pixels at the far border that may go unused.
        max_per_photo: the most sub-images that one photo gives, spread evenly over it; None for all.
        compression_level: of the PNG data, 0 to 9.
        hold_out: photos for testing, by name or by name without suffix.
        overwrite: replace an earlier ``out``.
        on_error: ``stop`` (write nothing) or ``skip`` photos that cannot be decoded or are too small.
        progress: report on stderr.

    Raises:
        UserError: for unusable options or photos, a taken ``out``, a full disk.
    """
    check_grid(crop_size, step, thresh_size, scale)
    if not 0 <= compression_level <= 9:
        raise UserError(f"compression level {compression_level}: must be from 0 to 9")
    if max_per_photo is not None and max_per_photo < 1:
        raise UserError(f"max per photo {max_per_photo}: must be at least 1")
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error: 'stop' or 'skip', got {on_error!r}")
    check_free(out, overwrite)
    ordered = sorted(photos)
    _check_not_inside(ordered, out, overwrite)
    held = _held_out(ordered, hold_out)
    if len(held) == len(ordered):
        raise UserError("there are no photos but those held out: nothing to cut")
    report = Report(out, scale, crop_size)
    with staged_folder(out, overwrite) as folder:
        packer = _Packer(folder, report, step, thresh_size, max_per_photo, compression_level)
        try:
            _pack_all(packer, ordered, held, on_error, progress)
            packer.close()
        except BaseException:
            packer.discard()
            raise
        report.size_in_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return report


def _pack_all(packer: "_Packer", photos: Sequence[Photo], held: Collection[str], on_error: str, progress: bool) -> None:
    number = 0
    report = packer.report
    for name, path in tracked(photos, "photo", progress):
        number += name not in held
        try:
            image = packer.read(path, name in held)
        except _UnusableError as error:
            report.skipped.append((name, str(error)))
            continue
        if report.skipped and on_error == "stop":
            continue  # nothing will be written, but all that is wrong is told at once
        if name in held:
            packer.hold_out(name, image)
        else:
            packer.pack(name, image, number)
    if report.skipped and on_error == "stop":
        listed = "; ".join(f"{printable(n)} ({why})" for n, why in report.skipped[:NAMED_IN_ERRORS])
        more = len(report.skipped) - NAMED_IN_ERRORS
        raise UserError(
            f"{len(report.skipped)} of {len(photos)} photos cannot be used: {listed}"
            + (f"; and {more} more" if more > 0 else "")
            + ": remove them, or pass --on-error skip"
        )
    if not report.sub_images:
        raise UserError(f"none of the {len(photos)} photos can be used, first: {report.skipped[0][1]}")


class _UnusableError(Exception):
    """Why one photo is left out."""


class _Packer:
    """The files of one data set while they are written."""

    def __init__(self, folder: Path, report: Report, step: int, thresh_size: int, most: int | None, level: int) -> None:
        self.folder = folder
        self.report = report
        self.step = step
        self.thresh_size = thresh_size
        self.most = most
        self.level = level
        self.gt = LmdbWriter(folder / report.gt.name)
        self.lq = LmdbWriter(folder / report.lq.name)
        self.names: TextIO = (folder / MARKER).open("w", encoding="ascii", newline="\n")

    def read(self, path: Path, held: bool) -> Image:
        """The photo at ``path``, if it is one that can be used."""
        try:
            image = read_image(path)
        except OSError as error:
            raise _UnusableError(f"cannot be read: {error.strerror}") from error
        if image is None:
            raise _UnusableError("cannot be decoded")
        least = self.report.scale if held else self.report.crop_size
        if min(mod_crop(image, self.report.scale).shape[:2]) < least:
            raise _UnusableError(f"{image.shape[1]}x{image.shape[0]}, smaller than {least}")
        return image

    def pack(self, name: str, image: Image, number: int) -> None:
        """Write a photo's sub-images."""
        report, scale = self.report, self.report.scale
        gt, lq = _gt_and_lq(image, scale)
        places = windows(gt.shape[1], gt.shape[0], report.crop_size, self.step, self.thresh_size, scale)
        places = thinned(places, self.most)
        gt_cuts, lq_cuts = {}, {}
        for count, (x, y, size) in enumerate(places, start=1):
            key = f"{number:06d}_s{count:03d}"
            gt_cuts[key] = gt[y : y + size, x : x + size]
            lq_cuts[key] = lq[y // scale : (y + size) // scale, x // scale : (x + size) // scale]
            row = {"key": key, "photo": name, "x": x, "y": y, "width": size, "height": size}
            self.names.write(json.dumps(row) + "\n")
        self._put(self.gt, gt_cuts)
        self._put(self.lq, lq_cuts)
        report.photos += 1
        report.sub_images += len(places)

    def hold_out(self, name: str, image: Image) -> None:
        """Write a photo and its LQ whole, under its name without folders and suffix."""
        gt, lq = _gt_and_lq(image, self.report.scale)
        for kind, pixels in (("GT", gt), (f"LQ_x{self.report.scale}", lq)):
            folder = self.folder / "test" / kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{Path(name).stem}.png").write_bytes(encode_png(pixels, self.level))
        self.report.held_out += 1

    def close(self) -> None:
        """Finish all files."""
        self.names.close()
        self.gt.close()
        self.lq.close()

    def discard(self) -> None:
        """Close all files after a failure; what they hold will be deleted."""
        for close in (self.gt.discard, self.lq.discard, self.names.close):
            with suppress(OSError):  # closing flushes, and the disk may be full: the first error is the one to tell
                close()

    def _put(self, writer: LmdbWriter, cuts: dict[str, Image]) -> None:
        data = {key: encode_png(cut, self.level) for key, cut in cuts.items()}
        shapes = {key: (cut.shape[0], cut.shape[1], 3) for key, cut in cuts.items()}
        writer.put(data, shapes, self.level)


def _gt_and_lq(image: Image, scale: int) -> tuple[Image, Image]:
    gt = mod_crop(image, scale)
    pixels = torch.from_numpy(gt.copy()).permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
    return gt, lq_levels(pixels, scale)[0].permute(1, 2, 0).contiguous().numpy()


def _held_out(photos: Sequence[Photo], hold_out: Collection[str]) -> set[str]:
    """The names that ``hold_out`` means; each must be one photo, and their file names must differ."""
    held: set[str] = set()
    for wanted in hold_out:
        found = [name for name, _ in photos if wanted in (name, str(PurePosixPath(name).with_suffix("")))]
        if len(found) != 1:
            what = "no photo has that name" if not found else f"could be {' or '.join(found)}"
            raise UserError(f"--hold-out {printable(wanted)}: {printable(what)}")
        held.update(found)
    stems = sorted(Path(name).stem for name in held)
    for one, next_one in pairwise(stems):
        if one == next_one:
            raise UserError(f"--hold-out: two photos of the name {printable(one)}; rename one")
    return held


def _check_not_inside(photos: Sequence[Photo], out: Path, overwrite: bool) -> None:
    place = out.expanduser().resolve()
    if overwrite and any(place in path.resolve().parents for _, path in photos):
        raise UserError(f"{out}: holds the photos themselves, so it is not replaced; choose another --out")
