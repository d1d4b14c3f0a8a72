"""Plan a packing from the files' headers: which photos, in which order, with how many sub-images."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from gramgan_plugin.data.photos import PhotoError, photo_info
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC
from gramgan_plugin.prepare.encode import Encoding
from gramgan_plugin.prepare.folders import Photo
from gramgan_plugin.prepare.presets import Preset
from gramgan_plugin.prepare.subimages import Window, check_grid, thinned, windows
from gramgan_plugin.utils.text import printable
from gramgan_plugin.version import __version__

FindLq = Callable[[str], Path]
WHOLE = (1, 1)
READERS = 8  # threads, which mostly wait for the disk or the network
NAMED_IN_ERRORS = 10


@dataclass(frozen=True)
class Settings:
    """How photos become sub-images.

    Attributes:
        scale: factor between GT and LQ.
        grid: grid of the sub-images.
        most: maximum number of sub-images of one photo; None for all.
        keep_detailed: share of the sub-images of all photos that stay, the most detailed; None for all.
        encoding: encoding of the sub-images.
        as_stored: use colours as stored, ignoring profiles, as BasicSR does; otherwise they are converted to sRGB.
        lq_kind: kind of the LQ that is made, see ``lq_levels``.
        share: part I of N of the photos, from 1, for packing on N machines; keys are those of the whole.
        as_shards: write shards in place of LMDBs, for sets of many millions of pairs; needs litdata.
    """

    scale: int
    grid: Preset
    most: int | None = None
    keep_detailed: float | None = None
    encoding: Encoding = field(default_factory=Encoding)
    as_stored: bool = False
    lq_kind: str = MATLAB_BICUBIC
    share: tuple[int, int] = WHOLE
    as_shards: bool = False

    def check(self) -> None:
        """Refuse invalid settings.

        Raises:
            UserError: naming the number.
        """
        check_grid(*self.grid, self.scale)
        if self.most is not None and self.most < 1:
            raise UserError(f"max per photo {self.most}: must be at least 1")
        if self.keep_detailed is not None and not 0 < self.keep_detailed <= 1:
            raise UserError(f"keep detailed {self.keep_detailed:g}: must be above 0, and at most 1 for all")

    def windows(self, width: int, height: int) -> list[Window]:
        """Return the sub-images of a photo of that size."""
        return thinned(windows(width, height, *self.grid, self.scale), self.most)


@dataclass(frozen=True)
class Entry:
    """A photo that will be packed or held out."""

    name: str
    path: Path
    lq: Path | None  # None: made from GT
    number: int  # in its keys
    held: bool
    width: int
    height: int


def key_of(entry: Entry, count: int) -> str:
    """Return the key of a photo's sub-image, numbered from 1; the same whatever is chosen."""
    return f"{entry.number:06d}_s{count:03d}"


@dataclass
class Plan:
    """All photos of a data set.

    Attributes:
        settings: how they become sub-images.
        entries: those that can be used, in the order of their names.
        refused: name and reason of all other photos.
        job: a digest that identifies this packing: settings and all files' names, sizes and times.
    """

    settings: Settings
    entries: list[Entry]
    refused: list[tuple[str, str]]
    job: str

    def sub_images(self) -> int:
        """Return the number of sub-images before any are chosen by detail, from the photos' headers."""
        sizes = ((entry.width, entry.height) for entry in self.entries if not entry.held)
        return sum(len(self.settings.windows(*size)) for size in sizes)


def make_plan(
    photos: Sequence[Photo], settings: Settings, hold_out: Collection[str] = (), find_lq: FindLq | None = None
) -> Plan:
    """Inspect the headers of all photos, and of their LQ if it is given.

    Args:
        photos: name and file of each; numbered from 1 in the order of the names.
        settings: how they become sub-images.
        hold_out: photos for testing, by name or by name without suffix; they have no number.
        find_lq: returns the LQ file for a photo's name, or raises a ``PhotoError``; None to make LQ.

    Raises:
        UserError: if an entry of ``hold_out`` does not name exactly one photo, or no other photos are left.
    """
    settings.check()
    ordered = sorted(photos)
    held = _held_out(ordered, hold_out)
    if len(held) == len(ordered):
        raise UserError("all photos are held out: nothing to cut")
    numbers, number = [], 0
    for name, _ in ordered:
        number += name not in held
        numbers.append(number)
    # Held-out photos, which are few, are in the first share.
    parts = [
        0 if name in held else (number - 1) % settings.share[1]
        for (name, _), number in zip(ordered, numbers, strict=True)
    ]
    own = [place for place, part in enumerate(parts) if part == settings.share[0] - 1]
    if not own:
        raise UserError(f"share {'/'.join(map(str, settings.share))}: none of the {len(ordered)} photos is in it")
    ordered, numbers = [ordered[place] for place in own], [numbers[place] for place in own]
    with ThreadPoolExecutor(READERS) as pool:
        inspected = pool.map(lambda p, n: _inspect(p, n, p[0] in held, settings, find_lq), ordered, numbers)
        entries, refused, digest = [], [], _job_digest(settings, held)
        for (name, _), (entry, stamp) in zip(ordered, inspected, strict=True):
            digest.update(json.dumps([name, stamp]).encode("ascii"))
            if isinstance(entry, Entry):
                entries.append(entry)
            else:
                refused.append((name, entry))
    return Plan(settings, entries, refused, digest.hexdigest())


def check_usable(plan: Plan, total: int, on_error: str) -> None:
    """Refuse a plan with unusable photos or, if they are skipped, one without usable photos.

    Raises:
        UserError: naming the photos.
    """
    if plan.refused and on_error == "stop":
        raise refusal(plan.refused, total)
    if all(entry.held for entry in plan.entries):
        first = f", first: {plan.refused[0][1]}" if plan.refused else ""
        raise UserError(f"none of the {total} photos can be used{first}")


def refusal(problems: Sequence[tuple[str, str]], total: int) -> UserError:
    """Return the error for unusable photos, with the names of the first ones."""
    listed = "; ".join(f"{printable(name)} ({why})" for name, why in problems[:NAMED_IN_ERRORS])
    more = len(problems) - NAMED_IN_ERRORS
    return UserError(
        f"{len(problems)} of {total} photos cannot be used: {listed}"
        + (f"; and {more} more" if more > 0 else "")
        + (": remove them, or pass --on-error skip" if len(problems) < total else ": none is left; see the first")
    )


def _inspect(
    photo: Photo, number: int, held: bool, settings: Settings, find_lq: FindLq | None
) -> tuple[Entry | str, list[Any]]:
    """Return a photo's entry, or why it cannot be used; and the sizes and times of its files."""
    name, path = photo
    stamp: list[Any] = []
    try:
        info = photo_info(path)
        stamp += _stamp(path)
        lq = None if find_lq is None else find_lq(name)
        entry = Entry(name, path, lq, number, held, info.width, info.height)
        scale = settings.scale
        width, height = (side - side % scale for side in (info.width, info.height))
        least = scale if held else settings.grid.crop_size
        if min(width, height) < least:
            raise PhotoError(f"{info.width}x{info.height}, smaller than {least}")
        if lq is not None:
            with lq_errors(lq):
                of_lq = photo_info(lq)
                stamp += _stamp(lq)
            check_lq_size(lq, (of_lq.width, of_lq.height), (info.width, info.height), scale)
    except PhotoError as error:
        return str(error), stamp
    return entry, stamp


@contextmanager
def lq_errors(path: Path) -> Iterator[None]:
    """Add the LQ photo's name to its errors, since they are listed under the GT photo's name."""
    try:
        yield
    except PhotoError as error:
        raise PhotoError(f"its LQ photo {path.name}: {error}") from error


def check_lq_size(path: Path, size: tuple[int, int], gt: tuple[int, int], scale: int) -> None:
    """Refuse an LQ photo that is not GT's size divided by the scale, rounded down or up.

    Raises:
        PhotoError: with both sizes.
    """
    if any(lq not in (side // scale, -(-side // scale)) for lq, side in zip(size, gt, strict=True)):
        expected = "x".join(str(side // scale) for side in gt)
        raise PhotoError(f"its LQ photo {path.name} is {size[0]}x{size[1]}, not {expected}")


def _stamp(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise PhotoError("is gone") from error
    return [path.name, status.st_size, status.st_mtime_ns]


def _job_digest(settings: Settings, held: Collection[str]) -> "hashlib._Hash":
    return hashlib.sha256(json.dumps([__version__, asdict(settings), sorted(held)]).encode("ascii"))


def _held_out(photos: Sequence[Photo], hold_out: Collection[str]) -> set[str]:
    """Return the names of the held-out photos; each entry must match one photo, and file names must differ."""
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
