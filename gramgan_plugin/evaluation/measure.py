"""Measure a model on a set of images: metrics for each image."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.errors import OptionError, UserError, is_out_of_memory
from gramgan_plugin.evaluation.lq_kind import NOT_RECORDED, lq_kind
from gramgan_plugin.evaluation.set_images import SetImage, set_images
from gramgan_plugin.registries import lookup
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.pictures import Image
from gramgan_plugin.utils.text import first_line


@dataclass
class SetResult:
    """Metrics of one model on one set.

    Attributes:
        model: the model's name.
        dataset: the set's name.
        per_image: metric -> image name -> value, all finite.
        lq: the kind of the set's LQ, in words.
        left_out: metric -> image name -> why it could not be measured.
        without_gt: metrics that need GT, if the set has none.
    """

    model: str
    dataset: str
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    lq: str = NOT_RECORDED
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    without_gt: list[str] = field(default_factory=list)

    def add(self, one: "Measured") -> None:
        """Add the values of one more image."""
        for metric, value in one.values.items():
            self.per_image.setdefault(metric, {})[one.name] = value
        for metric, reason in one.failed.items():
            self.left_out.setdefault(metric, {})[one.name] = reason
        self.without_gt += [metric for metric in one.without_gt if metric not in self.without_gt]
        for metric in self.without_gt:  # also of unreadable images, for which all metrics failed
            self.left_out.pop(metric, None)

    def means(self) -> dict[str, float]:
        """Return metric -> mean over the images that could be measured."""
        # fsum rounds once, at the end, so the order of the images makes no difference.
        return {metric: math.fsum(values.values()) / len(values) for metric, values in self.per_image.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of results.json, one per metric; the mean is null if no image could be measured."""
        means = self.means()
        return [
            {
                "model": self.model,
                "set": self.dataset,
                "metric": metric,
                "mean": means.get(metric),
                "per_image": self.per_image.get(metric, {}),
                "lq": self.lq,
                **({"left_out": self.left_out[metric]} if metric in self.left_out else {}),
                **({"without_gt": True} if metric in self.without_gt else {}),
            }
            for metric in dict.fromkeys([*self.per_image, *self.left_out, *self.without_gt])
        ]

    def problems(self) -> list[str]:
        """Return a line for each image that could not be measured, and one for the metrics that lack GT."""
        found: dict[tuple[str, str], list[str]] = {}
        for metric, images in self.left_out.items():
            for name, reason in images.items():
                found.setdefault((name, reason), []).append(metric)
        missing = f"{self.dataset}: has no GT, so {', '.join(self.without_gt)} cannot be measured on it"
        return [missing] * bool(self.without_gt) + [
            f"{self.dataset}: {name} is left out of the mean of {', '.join(metrics)}: {reason}"
            for (name, reason), metrics in found.items()
        ]


@dataclass(frozen=True)
class Measured:
    """One image of a set, enlarged and measured.

    Attributes:
        name: the image's name.
        lq: (1, C, h, w) in [0, 1], or None if the set has none.
        image: SR, (H, W, C) uint8 BGR, or None if the image could not be read or enlarged.
        truth: GT in the same form, or None if there is none.
        values: metric -> value, finite.
        failed: metric -> why this image has no value.
        without_gt: the metrics that need GT, if there is none.
    """

    name: str
    lq: Tensor | None
    image: Image | None
    truth: Image | None
    values: dict[str, float]
    failed: dict[str, str] = field(default_factory=dict)
    without_gt: list[str] = field(default_factory=list)


Enlarge = Callable[[dict[str, Any]], Tensor]


def measure(
    enlarge: Enlarge,
    loader: DataLoader[Any],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    model: str,
    device: torch.device,
    stop: bool = True,
    keep: Callable[[str, Image, Image | None], None] | None = None,
) -> SetResult:
    """Enlarge each image of a set and measure it against GT.

    Args:
        enlarge: maps a batch of one image (``lq`` (1, C, h, w) in [0, 1], and ``gt`` if there is one) to SR
            (1, C, H, W) in [0, 1].
        loader: one image per batch.
        metrics: name -> option block with the ``type`` of a registered metric.
        model: name for the result.
        device: device of the images.
        stop: whether an image that cannot be measured is an error; otherwise it is left out of the means.
        keep: called with each image's name, SR and GT (None if there is none), to save them.

    Returns:
        The values of each image. Metrics get 8-bit images in BGR, as in BasicSR.

    Raises:
        UserError: for an image that cannot be read, enlarged or measured, if ``stop`` is set.
    """
    options = loader.dataset.opt  # type: ignore[attr-defined]
    result = SetResult(model, options["name"], lq=lq_kind(options))
    for data in set_images(loader):
        one = measure_image(enlarge, data, metrics, model=model, dataset=result.dataset, device=device, stop=stop)
        if keep is not None and one.image is not None:
            keep(one.name, one.image, one.truth)
        result.add(one)
    return result


def measure_image(
    enlarge: Enlarge,
    image: SetImage,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    model: str,
    dataset: str,
    device: torch.device,
    stop: bool = True,
) -> Measured:
    """Enlarge one image and measure it; without GT, only by the metrics that need none.

    Args:
        enlarge: as for ``measure``.
        image: from ``set_images``.
        metrics: as for ``measure``.
        model: the model's name, for messages.
        dataset: the set's name, for messages.
        device: device of the images.
        stop: as for ``measure``.

    Raises:
        UserError: if the image cannot be read, enlarged or measured, and ``stop`` is set.
    """
    try:
        if image.data is None:
            raise UserError(image.problem)
        batch = to_model_batch(image.data, device)
        result = to_uint8(_enlarged(enlarge, batch, f"{dataset}: {image.name}: {model}"))
    except UserError as error:
        if stop:
            raise
        return Measured(image.name, None, None, None, {}, dict.fromkeys(metrics, str(error)))
    truth = to_uint8(batch["gt"]) if "gt" in batch else None
    one = Measured(image.name, batch.get("lq"), result, truth, {})
    for metric, block in metrics.items():
        if truth is None and needs_gt(metric, block):
            one.without_gt.append(metric)
            continue
        try:
            if truth is not None and result.shape != truth.shape:
                raise UserError(
                    f"{dataset}: {image.name}: {model} gives {_size(result)}, GT is {_size(truth)}; do network_g's "
                    "scale and channels fit this set?"
                )
            one.values[metric] = metric_value(metric, block, image.name, result, truth)
        except UserError as error:
            if stop:
                raise
            one.failed[metric] = str(error)
    return one


def _enlarged(enlarge: Enlarge, batch: dict[str, Any], prefix: str) -> Tensor:
    """Return SR; turn the exception of a network that cannot enlarge an image into a ``UserError``."""
    try:
        return enlarge(batch)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        height, width = batch["lq"].shape[-2:]
        reason = first_line(error)
        raise UserError(f"{prefix} cannot enlarge it ({width}x{height}): {reason}") from error


def needs_gt(metric: str, block: Mapping[str, Any]) -> bool:
    """Return whether ``val.metrics.METRIC`` compares with GT; NIQE, for example, does not."""
    compute = lookup("metric", block["type"], f"val.metrics.{metric}.type")
    parameter = inspect.signature(compute).parameters.get("img2")
    return parameter is not None and parameter.default is parameter.empty


def metric_value(metric: str, block: Mapping[str, Any], name: str, image: Image, truth: Image | None) -> float:
    """Return the value of ``val.metrics.METRIC`` for one image.

    Args:
        metric: its key in the options.
        block: its option block.
        name: the image's name, for messages.
        image: SR, (H, W, C) uint8 BGR.
        truth: GT in the same form, or None for a metric that needs none.

    Raises:
        OptionError: if it cannot measure this image, or its value is non-finite.
    """
    key = f"val.metrics.{metric}"
    options = {option: value for option, value in block.items() if option not in ("type", "better")}
    compute = lookup("metric", block["type"], f"{key}.type")
    images = {"img": image} if truth is None else {"img": image, "img2": truth}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's warning about the mean of an empty array
            value = float(compute(**images, **options))
    except (AssertionError, TypeError, ValueError, RuntimeError, ArithmeticError, IndexError, cv2.error) as error:
        if is_out_of_memory(error):
            raise
        reason = first_line(error)
        raise OptionError(f"{key}: {block['type']} cannot measure {name} ({_size(image)}): {reason}") from error
    if not math.isfinite(value):
        why = "it equals GT" if truth is not None and np.array_equal(image, truth) else "too small for crop_border?"
        raise OptionError(f"{key}: {block['type']} of {name} ({_size(image)}) is {value}: {why}")
    return value


def _size(image: Image) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} in {channels} channel{'s' if channels > 1 else ''}"


def to_uint8(image: Tensor) -> Image:
    """Convert (1, C, H, W) RGB in [0, 1] to (H, W, C) uint8 BGR, rounded half to even as in BasicSR."""
    levels = (image.detach()[0].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return np.ascontiguousarray(levels.transpose(1, 2, 0)[..., ::-1])


def write_image(image: Image, path: Path) -> None:
    """Write a PNG atomically.

    Args:
        image: (H, W, 3) uint8 BGR.
        path: the file; missing folders are made.

    Raises:
        UserError: if it cannot be written.
    """
    replace_file(path, encode_png(image, path))


def encode_png(image: Image, path: Path) -> bytes:
    """Return the content of a PNG file.

    Args:
        image: (H, W, 1 or 3) uint8 BGR.
        path: the file, for the message.

    Raises:
        UserError: if PNG cannot hold such an image.
    """
    done, data = cv2.imencode(".png", image)
    if not done:
        raise UserError(f"{path}: PNG cannot hold an image of {image.shape}")
    return data.tobytes()
