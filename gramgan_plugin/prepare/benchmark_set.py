"""Write one benchmark set in BasicSR's layout, with a record of the kind of its LQ."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gramgan_plugin.data.benchmark_record import FORMAT, OTHER, RECORD, describe_lq, folder_digest
from gramgan_plugin.data.images import Image, encode_png, mod_crop
from gramgan_plugin.data.photos import PhotoError, decode_photo, photo_info, read_bytes
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.matlab_bicubic import KINDS, MATLAB_BICUBIC
from gramgan_plugin.prepare.benchmark_sources import SourceSet
from gramgan_plugin.prepare.prepared_folder import DATA_SET, MARKER
from gramgan_plugin.prepare.shrink import shrink, shrink_as
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.staging import staged_folder
from gramgan_plugin.utils.text import printable
from gramgan_plugin.version import __version__

MADE = "made"
WHOLE = "original"  # BasicSR's name for GT that is not cut
PNG_LEVEL = 3  # higher levels take up to five times as long and save half a percent
# Mean absolute difference from bicubic LQ, in levels: blurred or noisy LQ of the same picture stays below.
OF_ANOTHER_PICTURE = 30.0


@dataclass
class SetReport:
    """What was written for one set.

    Attributes:
        name: the set's name.
        layout: the layout of its source.
        folder: the set's new folder.
        gt: its folder of GT.
        lq: its folder of LQ, by scale.
        kinds: the kind of LQ in words, by scale.
        images: number of images.
        warnings: what the user should know.
    """

    name: str
    layout: str
    folder: Path
    gt: Path
    lq: dict[int, Path]
    kinds: dict[int, str]
    images: int
    warnings: list[str] = field(default_factory=list)


class SetWriter:
    """Writes one set.

    Args:
        source: the set's files.
        scales: scales of the LQ to write.
        mod: GT is cut to multiples of it, unless the source's LQ belongs to GT that was cut to the scale only.
        make_lq: make LQ even if the source has it.
        kind: kind of the LQ that is made, see ``lq_levels``.

    Raises:
        UserError: if GT and LQ do not belong together by names or sizes, or a header is unusable.
    """

    def __init__(
        self, source: SourceSet, scales: tuple[int, ...], mod: int, make_lq: bool, kind: str = MATLAB_BICUBIC
    ) -> None:
        self.source = source
        self.scales = scales
        self.kind = kind
        self.given = {} if make_lq else {scale: source.lq[scale] for scale in scales if source.lq.get(scale)}
        if not source.gt:
            raise UserError(f"{source.root}: {source.layout}'s layout, but no GT images in it")
        for lq in self.given.values():
            _check_partners(source.name, source.gt, lq)
        self.mod = mod if self._lq_fits(mod) else None  # None: GT stays whole
        # The difference of the source's LQ from each kind that can be made.
        self.differences = {scale: {kind: _Difference() for kind in KINDS} for scale in self.given}

    def write(self, folder: Path, overwrite: bool, progress: bool) -> SetReport:
        """Write the set to a temporary folder, then rename it."""
        gt_name = WHOLE if self.mod is None else f"GTmod{self.mod}"
        names = {scale: f"LRbicx{scale}" for scale in self.scales}
        with staged_folder(folder, DATA_SET, overwrite) as staging:
            for name in (gt_name, *names.values()):
                (staging / name).mkdir()
            lines = []
            for stem in tracked(sorted(self.source.gt), f"{self.source.name} image", progress):
                files = self._write_image(stem, staging / gt_name, {s: staging / name for s, name in names.items()})
                lines.append(json.dumps({"name": stem, **files}) + "\n")
            (staging / MARKER).write_text("".join(lines), encoding="ascii")
            record = self._record(staging, gt_name, names)
            (staging / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
        kinds = {scale: describe_lq(record["lq"][str(scale)]) for scale in self.scales}
        lq = {scale: folder / name for scale, name in names.items()}
        report = SetReport(
            self.source.name, self.source.layout, folder, folder / gt_name, lq, kinds, len(self.source.gt)
        )
        report.warnings = self._warnings()
        return report

    def _lq_fits(self, mod: int) -> bool:
        """Return whether all given LQ fits GT cut to ``mod``; otherwise it must fit GT cut to the scale."""
        fits_mod, misfit = True, ""
        for stem, path in self.source.gt.items():
            width, height = _size(path)
            if min(width, height) < mod:
                raise UserError(f"{printable(str(path))}: {width}x{height}, smaller than the mod-crop {mod}; remove it")
            for scale, files in self.given.items():
                lq = _size(files[stem])
                fits_mod &= lq == (width // mod * mod // scale, height // mod * mod // scale)
                if lq != (width // scale, height // scale):
                    misfit = misfit or (
                        f"{printable(str(files[stem]))}: LQ of {lq[0]}x{lq[1]} is not 1/{scale} of its GT of "
                        f"{width}x{height}; is it for another scale? --lq make does without it"
                    )
        if misfit and not fits_mod:
            raise UserError(misfit)
        return fits_mod

    def _write_image(self, stem: str, gt_folder: Path, lq_folders: dict[int, Path]) -> dict[str, Any]:
        path = self.source.gt[stem]
        data, stored = _read(path)
        gt = stored if self.mod is None else mod_crop(stored, self.mod)
        same = gt.shape == stored.shape and _is_plain_png(data, gt)
        (gt_folder / f"{stem}.png").write_bytes(data if same else encode_png(gt, PNG_LEVEL))
        for scale, folder in lq_folders.items():
            cut = mod_crop(gt, scale)
            if scale not in self.given:
                (folder / f"{stem}.png").write_bytes(encode_png(shrink(cut, scale, self.kind), PNG_LEVEL))
                continue
            source = self.given[scale][stem]
            data, lq = _read(source)
            (folder / f"{stem}{source.suffix}").write_bytes(data)
            for kind, made in zip(KINDS, shrink_as(KINDS, cut, scale), strict=True):
                self.differences[scale][kind].add(lq, made, source)
        given = {f"lq_x{scale}": _relative(files[stem], self.source.root) for scale, files in self.given.items()}
        return {"gt": _relative(path, self.source.root), **given}

    def _record(self, staging: Path, gt_name: str, names: dict[int, str]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "made_by": f"gramgan-plugin {__version__}",
            "set": self.source.name,
            "layout": self.source.layout,
            "images": len(self.source.gt),
            "expected": self.source.expected,
            "mod_crop": self.mod,
            "gt": {"folder": gt_name, "sha256": folder_digest(staging / gt_name)},
            "lq": {str(scale): self._lq_record(scale, staging / name) for scale, name in names.items()},
        }

    def _lq_record(self, scale: int, folder: Path) -> dict[str, Any]:
        found = self.differences.get(scale)
        kind = self.kind if found is None else _kind(found)
        # The recorded differences are always those from matlab-bicubic.
        apart = _Difference() if found is None else found[MATLAB_BICUBIC]
        return {
            "folder": folder.name,
            "kind": kind,
            "from": self.source.layout if scale in self.given else MADE,
            "largest_difference": apart.largest,
            "mean_difference": apart.mean,
            "sha256": folder_digest(folder),
        }

    def _warnings(self) -> list[str]:
        name, images, expected = self.source.name, len(self.source.gt), self.source.expected
        found = []
        if expected is not None and images != expected:
            found.append(f"{name}: {images} images, the set has {expected}; means will not be comparable")
        if self.mod is None:
            found.append(
                f"{name}: its LQ belongs to GT cut to the scale alone, so GT is whole in {WHOLE}/ and cut when read; "
                "--lq make gives the usual GTmod12"
            )
        return found


@dataclass
class _Difference:
    """The difference of a set's LQ from LQ made from its GT, in levels."""

    largest: int = 0
    total: float = 0.0
    values: int = 0

    @property
    def mean(self) -> float:
        return self.total / self.values if self.values else 0.0

    def add(self, lq: Image, made: Image, source: Path) -> None:
        apart = np.abs(lq.astype(np.int16) - made)
        mean = float(apart.mean())
        if mean > OF_ANOTHER_PICTURE:
            raise UserError(
                f"{printable(str(source))}: does not show its GT ({mean:.0f} levels off on average); "
                "remove both, or pass --lq make"
            )
        self.largest = max(self.largest, int(apart.max()))
        self.total += mean * apart.size
        self.values += apart.size


def _kind(found: dict[str, _Difference]) -> str:
    """Return the nearest kind, if no value differs by more than a level: programs round halves differently."""
    nearest = min(found, key=lambda kind: found[kind].total)
    return nearest if found[nearest].largest <= 1 else OTHER


def _check_partners(name: str, gt: dict[str, Path], lq: dict[str, Path]) -> None:
    odd = sorted(gt.keys() ^ lq.keys())
    if odd:
        has, lacks = ("GT", "LQ") if odd[0] in gt else ("LQ", "GT")
        raise UserError(
            f"{name}: {printable(odd[0])} has {has} and no {lacks} ({len(gt)} GT, {len(lq)} LQ images); "
            "complete the set, or pass --lq make"
        )


def _size(path: Path) -> tuple[int, int]:
    try:
        info = photo_info(path)
    except PhotoError as error:
        raise UserError(f"{printable(str(path))}: {error}") from error
    return info.width, info.height


def _read(path: Path) -> tuple[bytes, Image]:
    """Return a file and its pixels as stored, ignoring profiles: BasicSR and papers measure these."""
    try:
        data = read_bytes(path)
        return data, decode_photo(data, manage_colours=False)
    except PhotoError as error:
        raise UserError(f"{printable(str(path))}: {error}") from error


def _is_plain_png(data: bytes, pixels: Image) -> bool:
    """Return whether every reader, also one that converts colours, decodes the file to these pixels."""
    info = photo_info(data)
    plain = info.format == "PNG" and info.bits <= 8 and info.mode in ("1", "L", "P", "RGB")
    return plain and np.array_equal(decode_photo(data), pixels)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
