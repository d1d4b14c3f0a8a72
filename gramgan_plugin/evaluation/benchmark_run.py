"""Measure several models on several benchmark sets."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.benchmark_models import BenchmarkModel
from gramgan_plugin.evaluation.benchmark_sets import GT, BenchmarkImage, BenchmarkSet, Pixels
from gramgan_plugin.evaluation.measure import SetResult, write_image
from gramgan_plugin.evaluation.metrics import Compared, Metric
from gramgan_plugin.functional.matlab_bicubic import KINDS
from gramgan_plugin.prepare.shrink import shrink_as
from gramgan_plugin.utils.progress import tracked

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


def measure_models(
    models: Sequence[BenchmarkModel],
    sets: Sequence[BenchmarkSet],
    metrics: Sequence[Metric],
    scale: int,
    *,
    device: torch.device,
    crop: int,
    save: Path | None = None,
    show: bool = True,
) -> Measurements:
    """Enlarge each image of each set by each model and measure SR, as saved in 8 bits.

    Args:
        models: see `benchmark_models`.
        sets: see `benchmark_sets`.
        metrics: what to measure. An image that cannot be read, enlarged or measured is left out, with the reason.
        scale: of the models.
        device: where metrics are computed.
        crop: pixels left out at each border.
        save: a folder that gets ``SET/MODEL/IMAGE.png``.
        show: report the progress on stderr.

    Raises:
        UserError: if SR cannot be written.
    """
    found = Measurements()
    for one in sets:
        results = {model.label: SetResult(model.label, one.name, lq=one.lq) for model in models}
        pictures: dict[str, dict[str, Pixels]] = {}
        kinds = _Kinds()
        for image in tracked(one.images, f"{one.name} image", show):
            try:
                lq, gt = image.read(scale)
            except UserError as error:
                for result in results.values():
                    _leave_out(result, image.name, metrics, error)
                continue
            if image.lq is not None:
                kinds.add(lq, gt, scale)
            versions: dict[str, Pixels] = {}
            for model in models:
                sr = _enlarged(model, one.name, image, lq, gt, results[model.label], metrics)
                if sr is None:
                    continue
                _measure(Compared.of(sr, gt, lq, crop, device), image.name, metrics, results[model.label])
                versions[model.label] = np.ascontiguousarray(sr[..., ::-1])
                if save is not None:
                    write_image(versions[model.label], save / one.name / folder_name(model.label) / f"{image.name}.png")
            if len(pictures) < SHOWN:
                pictures[image.name] = versions | {GT: np.ascontiguousarray(gt[..., ::-1])}
        found.lq[one.name] = one.lq if not kinds.images else kinds.words(one.lq)
        for result in results.values():
            result.lq = found.lq[one.name]
        found.results += results.values()
        found.pictures[one.name] = pictures
    return found


def _enlarged(
    model: BenchmarkModel,
    dataset: str,
    image: BenchmarkImage,
    lq: Pixels,
    gt: Pixels,
    result: SetResult,
    metrics: Sequence[Metric],
) -> Pixels | None:
    """Return SR, or None with the reason noted for each metric."""
    try:
        sr = model.enlarge(dataset, image.name, lq)
        if sr.shape != gt.shape:
            size, expected = (f"{shape[1]}x{shape[0]}" for shape in (sr.shape, gt.shape))
            raise UserError(f"{model.label} gives {size}, GT is {expected}")
    except UserError as error:
        _leave_out(result, image.name, metrics, error)
        return None
    return sr


def _leave_out(result: SetResult, name: str, metrics: Sequence[Metric], error: UserError) -> None:
    for metric in metrics:
        result.left_out.setdefault(metric.label.name, {})[name] = str(error)


def _measure(images: Compared, name: str, metrics: Sequence[Metric], result: SetResult) -> None:
    for metric in metrics:
        try:
            value = float(metric.compute(images))
            if not np.isfinite(value):
                raise UserError("SR equals GT" if torch.equal(images.sr, images.gt) else f"the value is {value}")
            result.per_image.setdefault(metric.label.name, {})[name] = value
        except (UserError, ValueError) as error:
            result.left_out.setdefault(metric.label.name, {})[name] = str(error)


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
