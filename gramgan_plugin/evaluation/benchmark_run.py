"""Measure several models on several benchmark sets."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from gramgan_plugin.errors import UserError, is_out_of_memory
from gramgan_plugin.evaluation.benchmark_models import BenchmarkModel
from gramgan_plugin.evaluation.benchmark_sets import GT, BenchmarkImage, BenchmarkSet, Pixels
from gramgan_plugin.evaluation.measure import SetResult, write_image
from gramgan_plugin.evaluation.metrics import Compared, Metric
from gramgan_plugin.functional.matlab_bicubic import KINDS
from gramgan_plugin.prepare.shrink import shrink_as
from gramgan_plugin.utils import distributed
from gramgan_plugin.utils.precision import full_float32
from gramgan_plugin.utils.progress import tracked

T = TypeVar("T")

SHOWN = 4  # images of a set in the report


@dataclass
class Measurements:
    """What was measured.

    Attributes:
        results: of each set and model, in the order of the models.
        pictures: set -> image -> label -> (H, W, 3) uint8 BGR, of the first images of each set.
        lq: set -> the kind of its LQ, in words.
    """

    results: list[SetResult] = field(default_factory=list)
    pictures: dict[str, dict[str, dict[str, Pixels]]] = field(default_factory=dict)
    lq: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How images are measured.

    Attributes:
        metrics: what to measure.
        scale: of the models.
        crop: pixels left out at each border.
        device: where metrics are computed.
        save: a folder that gets ``SET/MODEL/IMAGE.png``.
    """

    metrics: Sequence[Metric]
    scale: int
    crop: int
    device: torch.device
    save: Path | None = None


def measure_models(
    models: Sequence[BenchmarkModel], sets: Sequence[BenchmarkSet], protocol: Protocol, show: bool = True
) -> Measurements | None:
    """Enlarge each image of each set by each model and measure SR, as saved in 8 bits.

    Of several processes, r of R takes the images r, r + R, ... of a set; each of them must call this.

    Args:
        models: see `benchmark_models`.
        sets: see `benchmark_sets`.
        protocol: how. An image that cannot be read, enlarged or measured is left out, with the reason.
        show: report the progress on stderr.

    Returns:
        What one process would have measured, on the first process; None on others.

    Raises:
        UserError: if SR cannot be written.
    """
    rank, processes = distributed.place()
    found = Measurements()
    for one in sets:
        images = one.images[rank::processes]
        share = _Share({model.label: SetResult(model.label, one.name) for model in models})
        with full_float32():
            for image in tracked(images, f"{one.name} image", show and rank == 0):
                share.measure(models, one.name, image, protocol)
        shares = distributed.gather_on_first(share)
        if rank == 0:
            _join(shares, one, found)
    return found if rank == 0 else None


@dataclass
class _Share:
    """What one process measured of a set: label -> result; pictures of its first images; the kind of LQ."""

    results: dict[str, SetResult]
    pictures: dict[str, dict[str, Pixels]] = field(default_factory=dict)
    kinds: "_Kinds" = field(default_factory=lambda: _Kinds())

    def measure(self, models: Sequence[BenchmarkModel], dataset: str, image: BenchmarkImage, how: Protocol) -> None:
        """Enlarge an image by each model and measure the results."""
        try:
            lq, gt = image.read(how.scale)
        except UserError as error:
            for label in self.results:
                self._leave_out(label, image.name, how, error)
            return
        if image.lq is not None:
            self.kinds.add(lq, gt, how.scale)
        versions: dict[str, Pixels] = {}
        for model in models:
            try:
                versions[model.label] = _enlarged(model, dataset, image.name, lq, gt)
            except UserError as error:
                self._leave_out(model.label, image.name, how, error)
        self._measure(versions, image.name, gt, lq, how)
        shown = {label: np.ascontiguousarray(sr[..., ::-1]) for label, sr in versions.items()}
        if how.save is not None:
            for label, sr in shown.items():
                write_image(sr, how.save / dataset / folder_name(label) / f"{image.name}.png")
        if len(self.pictures) < SHOWN:
            self.pictures[image.name] = shown | {GT: np.ascontiguousarray(gt[..., ::-1])}

    def _measure(self, versions: dict[str, Pixels], name: str, gt: Pixels, lq: Pixels, how: Protocol) -> None:
        # A GPU is faster with all at once, a CPU with what fits into its cache.
        together = [list(versions)] if how.device.type != "cpu" else [[label] for label in versions]
        for labels in filter(None, together):
            images = Compared.of([versions[label] for label in labels], gt, lq, how.crop, how.device)
            for metric in how.metrics:
                for label, value in zip(labels, _values(metric, images), strict=True):
                    if isinstance(value, float):
                        self.results[label].per_image.setdefault(metric.label.name, {})[name] = value
                    else:
                        self.results[label].left_out.setdefault(metric.label.name, {})[name] = value

    def _leave_out(self, label: str, name: str, how: Protocol, error: UserError) -> None:
        for metric in how.metrics:
            self.results[label].left_out.setdefault(metric.label.name, {})[name] = str(error)


def _enlarged(model: BenchmarkModel, dataset: str, name: str, lq: Pixels, gt: Pixels) -> Pixels:
    sr = model.enlarge(dataset, name, lq)
    if sr.shape != gt.shape:
        size, expected = (f"{shape[1]}x{shape[0]}" for shape in (sr.shape, gt.shape))
        raise UserError(f"{model.label} gives {size}, GT is {expected}")
    return sr


def _values(metric: Metric, images: Compared) -> list[float | str]:
    """Return the value of each model's image, or the reason why there is none."""
    try:
        values = metric.compute(images).tolist()
    except (UserError, ValueError) as error:
        return [str(error)] * len(images.sr)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(images.sr) == 1:
            return ["not enough memory to measure it"]
    else:
        pairs = zip(values, images.one_by_one(), strict=True)
        return [value if math.isfinite(value) else _why_not_finite(value, one) for value, one in pairs]
    # Outside of `except`: the error keeps the tensors of the failed call alive.
    return [value for one in images.one_by_one() for value in _values(metric, one)]


def _why_not_finite(value: float, images: Compared) -> str:
    return "SR equals GT" if torch.equal(images.sr, images.gt) else f"the value is {value}"


def _join(shares: Sequence[_Share], one: BenchmarkSet, found: Measurements) -> None:
    """Join the processes' shares of a set in the order of its images."""
    kinds = shares[0].kinds
    for share in shares[1:]:
        kinds.join(share.kinds)
    found.lq[one.name] = one.lq if not kinds.images else kinds.words(one.lq)
    place = {image.name: number for number, image in enumerate(one.images)}
    for label, result in shares[0].results.items():
        result.lq = found.lq[one.name]
        results = [share.results[label] for share in shares]
        result.per_image = _in_order([own.per_image for own in results], place)
        result.left_out = _in_order([own.left_out for own in results], place)
        found.results.append(result)
    pictures = {name: versions for share in shares for name, versions in share.pictures.items()}
    found.pictures[one.name] = {name: pictures[name] for name in sorted(pictures, key=place.__getitem__)[:SHOWN]}


def _in_order(tables: Sequence[dict[str, dict[str, T]]], place: dict[str, int]) -> dict[str, dict[str, T]]:
    """Join tables metric -> image -> value, the images in the order of their places."""
    joined: dict[str, dict[str, T]] = {}
    for table in tables:
        for metric, values in table.items():
            joined.setdefault(metric, {}).update(values)
    return {metric: dict(sorted(values.items(), key=lambda one: place[one[0]])) for metric, values in joined.items()}


class _Kinds:
    """The difference of a set's LQ from each kind of bicubic, in levels."""

    def __init__(self) -> None:
        self.images = 0
        self.largest = dict.fromkeys(KINDS, 0)

    def add(self, lq: Pixels, gt: Pixels, scale: int) -> None:
        self.images += 1
        for kind, made in zip(KINDS, shrink_as(KINDS, gt, scale), strict=True):
            apart = int(np.abs(lq.astype(np.int16) - made).max())
            self.largest[kind] = max(self.largest[kind], apart)

    def join(self, other: "_Kinds") -> None:
        self.images += other.images
        self.largest = {kind: max(apart, other.largest[kind]) for kind, apart in self.largest.items()}

    def words(self, recorded: str) -> str:
        """Return the kind; programs round halves differently, so that one level more or less is the same kind."""
        nearest = min(self.largest, key=lambda kind: self.largest[kind])
        apart = self.largest[nearest]
        if apart <= 1:
            return f"{nearest}, compared with GT"
        return f"{recorded}; up to {apart} levels from {nearest} of GT"


def folder_name(label: str) -> str:
    """Return a model's label as the name of a folder on any system.

    >>> folder_name("A@0.5:B")
    'A@0.5_B'
    """
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", label)
