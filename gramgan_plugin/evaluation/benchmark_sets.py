"""Find benchmark sets in a folder, and read their images as papers measure them."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.benchmark_record import recorded_lq
from gramgan_plugin.data.images import mod_crop
from gramgan_plugin.data.photos import PhotoError, decode_photo, read_bytes
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC
from gramgan_plugin.prepare.benchmark_sources import SourceSet, find_sets
from gramgan_plugin.prepare.shrink import shrink
from gramgan_plugin.utils.io import file_sha256
from gramgan_plugin.utils.text import printable, shown

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
GT = "GT"  # its label in pictures


@dataclass(frozen=True)
class BenchmarkImage:
    """The files of one image.

    Attributes:
        name: without suffix.
        gt: the file of GT.
        lq: the file of LQ, or None if it is made.
    """

    name: str
    gt: Path
    lq: Path | None

    def read(self, scale: int) -> tuple[Pixels, Pixels]:
        """Return LQ (h, w, 3) and GT (scale h, scale w, 3), uint8 RGB; colour profiles are ignored, as papers do.

        Raises:
            UserError: if a file cannot be read, or the two do not fit.
        """
        gt = read_pixels(self.gt)
        if self.lq is None:
            gt = np.ascontiguousarray(mod_crop(gt, scale))
            if not gt.size:
                raise UserError(f"{printable(self.gt.name)}: smaller than {scale} pixels; remove it")
            return shrink(gt, scale, MATLAB_BICUBIC), gt
        lq = read_pixels(self.lq)
        height, width = scale * lq.shape[0], scale * lq.shape[1]
        if not (0 <= gt.shape[0] - height < scale and 0 <= gt.shape[1] - width < scale):
            sizes = f"LQ of {lq.shape[1]}x{lq.shape[0]} is not 1/{scale} of GT of {gt.shape[1]}x{gt.shape[0]}"
            raise UserError(f"{printable(self.name)}: {sizes}; is it for another scale?")
        return lq, np.ascontiguousarray(gt[:height, :width])


@dataclass(frozen=True)
class BenchmarkSet:
    """A set of images at one scale.

    Attributes:
        name: under which papers report it.
        images: its images, by name.
        lq: the kind of its LQ, in words.
        expected: the number of images that the set of this name has, or None.
    """

    name: str
    images: tuple[BenchmarkImage, ...]
    lq: str
    expected: int | None

    def digest(self) -> str:
        """Return the SHA-256 over GT's files, equal to ``sha256sum * | sha256sum`` (with ``LC_ALL=C``)."""
        files = sorted((image.gt for image in self.images), key=lambda path: os.fsencode(path.name))
        whole = hashlib.sha256()
        for path in files:
            whole.update(f"{file_sha256(path)}  ".encode() + os.fsencode(path.name) + b"\n")
        return whole.hexdigest()


def benchmark_sets(data: Path, scale: int, names: Sequence[str] | None = None) -> list[BenchmarkSet]:
    """Find sets in the usual layouts, see ``prepare.benchmark_sources``.

    Args:
        data: a folder of sets, or one set.
        scale: of LQ. Where a set has none, GT is cut to multiples of it, and LQ made by MATLAB's bicubic.
        names: the sets to take, ignoring case; None for all. "BSDS100" and "B100" mean "BSD100".

    Raises:
        UserError: if there is none, or one of ``names`` is not there.
    """
    found: dict[str, SourceSet] = {}
    for source in find_sets(data, (scale,)):
        if source.name in found:
            folders = f"{found[source.name].root.name} and {source.root.name}"
            raise UserError(f"{data}: {printable(folders)} are both {source.name}; keep one of them")
        if source.gt:
            found[source.name] = source
    if names is not None:
        by_name = {name.lower(): source for name, source in found.items()}
        missing = [name for name in names if name.lower() not in by_name]
        if missing:
            there = ", ".join(found) or "none"
            raise UserError(f"{data}: has no set {shown(missing[0])!r}; there are {printable(there)}")
        found = {by_name[name.lower()].name: by_name[name.lower()] for name in names}
    if not found:
        raise UserError(f"{data}: no set of images in it, or none is named")
    return [_benchmark_set(source, scale) for source in found.values()]


def _benchmark_set(source: SourceSet, scale: int) -> BenchmarkSet:
    lq = source.lq.get(scale, {})
    odd = sorted(source.gt.keys() ^ lq.keys()) if lq else []
    if odd:
        raise UserError(f"{source.root}: {shown(odd[0])} has only one of GT and LQ; complete the set, or remove its LQ")
    images = tuple(BenchmarkImage(name, path, lq.get(name)) for name, path in sorted(source.gt.items()))
    if not lq:
        kind = f"{MATLAB_BICUBIC}, made from GT cut to multiples of {scale}"
    else:
        folders = images[0].gt.parent, next(iter(lq.values())).parent
        kind = recorded_lq(*folders) or f"{source.layout}'s, not recorded"
    return BenchmarkSet(source.name, images, kind, source.expected)


def read_pixels(path: Path) -> Pixels:
    """Return a file's pixels as stored, (H, W, 3) uint8 RGB.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        image: Pixels = decode_photo(read_bytes(path), manage_colours=False)
    except PhotoError as error:
        # The message goes into the report, which has no paths of this machine.
        raise UserError(f"{printable(f'{path.parent.name}/{path.name}')}: {error}") from error
    return np.ascontiguousarray(image[..., ::-1])
