"""Check that images are undamaged and fit each other, the scale and the crop, without decoding them."""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gramgan_plugin.config.findings import Findings
from gramgan_plugin.data.images import SUFFIXES
from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.photo_wholeness import check_jpeg_whole, checked_png
from gramgan_plugin.data.photos import PhotoError, photo_info, read_bytes
from gramgan_plugin.errors import UserError

Size = tuple[int, int]  # (height, width)
# GT of benchmarks is cropped to multiples of 12 before LQ is made, but may be stored uncropped.
LARGEST_MOD = 12


class Deadline:
    """A time limit that starts when it is made.

    Args:
        seconds: until it ends.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Return whether the time has ended."""
        return time.monotonic() >= self._end


class Stored(NamedTuple):
    """The place of an image: a file's path, or a key and its LMDB."""

    key: str
    lmdb: LmdbImages | None = None

    @property
    def name(self) -> str:
        """The place as messages show it."""
        return self.key if self.lmdb is None else f"{self.lmdb.path}: {self.key}"


class Misfit(NamedTuple):
    """What is wrong with an image, its root option, and what to do if it is the only one or one of many."""

    root: str
    text: str
    advice: str = ""
    of_many: str = ""


@dataclass(frozen=True)
class ImageSet:
    """The images of a data set and their requirements.

    Attributes:
        where: its section, such as ``datasets.val``.
        pairs: GT and LQ; None for one that the set lacks.
        scale: how many times larger GT is; None if any sizes are allowed.
        crop: side of the training crop in GT; None if it may be larger than an image.
        training: whether it is the training set; images of other sets are read completely.
        tolerated: share of the images that a run skips with a warning.
    """

    where: str
    pairs: list[tuple[Stored | None, Stored | None]]
    scale: int | None
    crop: int | None
    training: bool
    tolerated: float


def check_images(images: ImageSet, deadline: Deadline, found: Findings) -> None:
    """Report images that are damaged or of the wrong size, and how many were not checked in time.

    Args:
        images: the data set.
        deadline: when reading files ends.
        found: gets the errors and warnings.
    """
    databases = {stored.lmdb for pair in images.pairs for stored in pair if stored is not None}
    listed = {database: database.sizes() for database in databases if database is not None}
    in_lists = images.training and None not in databases  # no file is read
    order = list(range(len(images.pairs)))
    random.Random(0).shuffle(order)  # so that those not checked in time are a random sample
    misfits: dict[int, Misfit] = {}
    checked = 0
    for number in order:
        if not in_lists and deadline.is_over():
            break
        misfit = _misfit(images, images.pairs[number], listed)
        if misfit is not None:
            misfits[number] = misfit
        checked += 1
    _report(images, [misfits[number] for number in sorted(misfits)], checked, found)
    if checked < len(order):
        found.warn(
            images.where,
            f"{len(order) - checked:,d} of {len(order):,d} images not checked; "
            f"that would take longer than {deadline.seconds:g} seconds",
        )


def _report(images: ImageSet, misfits: list[Misfit], checked: int, found: Findings) -> None:
    report = found.error if len(misfits) > images.tolerated * checked else found.warn
    left_out = "" if report == found.error else "; such images are skipped"
    for root in sorted({misfit.root for misfit in misfits}):
        first, *more = (misfit for misfit in misfits if misfit.root == root)
        count = f" ({1 + len(more):,d} of {checked:,d} images){first.of_many}" if more else first.advice
        report(f"{images.where}.{root}", f"{first.text}{count}{left_out}")


def _misfit(
    images: ImageSet, pair: tuple[Stored | None, Stored | None], listed: dict[LmdbImages, dict[str, Size]]
) -> Misfit | None:
    sizes: list[Size | None] = []
    for root, stored in zip(("dataroot_gt", "dataroot_lq"), pair, strict=True):
        try:
            sizes.append(stored and _size(stored, not images.training, listed))
        except PhotoError as error:
            return Misfit(root, f"{stored.name if stored else ''}: {error}")
        except UserError as error:  # its message names the image
            return Misfit(root, str(error))
    gt, lq = sizes
    if gt is None or images.scale is None:
        return None
    of_gt = f"{pair[0].name if pair[0] else ''}: GT of {_shown(gt)}"
    if lq is not None and not _fit(gt, lq, images.scale, exactly=images.training):
        return Misfit("dataroot_lq", f"{of_gt} is not {images.scale} times its LQ of {_shown(lq)}{_ratio(gt, lq)}")
    small = ("; remove it", "; set a smaller gt_size")
    if images.crop is not None and min(gt) // images.scale * images.scale < images.crop:
        return Misfit("dataroot_gt", f"{of_gt} is smaller than gt_size {images.crop}", *small)
    if min(gt) < images.scale:
        return Misfit("dataroot_gt", f"{of_gt} is smaller than the scale {images.scale}", "; remove it")
    return None


def _fit(gt: Size, lq: Size, scale: int, *, exactly: bool) -> bool:
    """Check whether GT is ``scale`` times LQ; outside training GT may be slightly larger, since it is then cropped."""
    if exactly:
        return gt == (lq[0] * scale, lq[1] * scale)
    return all(0 <= one - scale * other < max(other, LARGEST_MOD) for one, other in zip(gt, lq, strict=True))


def _ratio(gt: Size, lq: Size) -> str:
    ratio = gt[0] // lq[0]
    return f", but {ratio} times" if gt == (ratio * lq[0], ratio * lq[1]) else ""


def _size(stored: Stored, whole: bool, listed: dict[LmdbImages, dict[str, Size]]) -> Size | None:
    """Return (height, width) of an image; also read and check all of it if ``whole``.

    None for files that are not photos (.exr, .jp2, ...); OpenCV may be able to read them for BasicSR's data sets.

    Raises:
        PhotoError: if it is damaged or cut short.
        UserError: if it cannot be read.
    """
    if stored.lmdb is not None and not whole:
        return listed[stored.lmdb][stored.key]
    if stored.lmdb is None and Path(stored.key).suffix.lower() not in SUFFIXES:
        return None
    if not whole:
        info = photo_info(Path(stored.key))
    else:
        data = read_bytes(Path(stored.key)) if stored.lmdb is None else stored.lmdb.read(stored.key)
        info = photo_info(data)
        _check_bytes(data)
    return info.height, info.width


def _check_bytes(data: bytes) -> None:
    """Raise ``PhotoError`` for a file that is cut short or has wrong checksums; no pixel is decoded."""
    if data.startswith(b"\xff\xd8"):
        check_jpeg_whole(data)
    elif data.startswith(b"\x89PNG"):
        checked_png(data)
    elif data.startswith(b"BM") and int.from_bytes(data[2:6], "little") > len(data):
        raise PhotoError("cut short")


def _shown(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
