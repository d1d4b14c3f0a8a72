"""Running a model over a set of images: metrics for each image, pictures on request."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.evaluation.lq_kind import NOT_RECORDED, lq_kind
from gramgan_plugin.evaluation.pictures import Image
from gramgan_plugin.files import replace_file
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.registration import lookup

logger = logging.getLogger("basicsr")


@dataclass
class SetResult:
    """Metrics of one model on one set.

    Attributes:
        model: the model's name.
        dataset: the set's name.
        per_image: metric -> image name -> value.
        lq: of which kind the set's LQ is, in words.
    """

    model: str
    dataset: str
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    lq: str = NOT_RECORDED

    def means(self) -> dict[str, float]:
        """metric -> mean over the images."""
        return {metric: math.fsum(values.values()) / len(values) for metric, values in self.per_image.items()}

    def rows(self) -> list[dict[str, Any]]:
        """One row a metric, as they stand in results.json."""
        return [
            {
                "model": self.model,
                "set": self.dataset,
                "metric": metric,
                "mean": mean,
                "per_image": self.per_image[metric],
                "lq": self.lq,
            }
            for metric, mean in self.means().items()
        ]


@dataclass(frozen=True)
class Measured:
    """One image of a set, enlarged and measured.

    Attributes:
        name: the image's name.
        lq: (1, C, h, w) in [0, 1], or None where the set has none.
        image: SR, (H, W, C) uint8 BGR.
        truth: GT in the same form, or None where there is none.
        values: metric -> value; empty without GT.
    """

    name: str
    lq: Tensor | None
    image: Image
    truth: Image | None
    values: dict[str, float]


def measure(
    enlarge: Callable[[dict[str, Any]], Tensor],
    loader: DataLoader[Any],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    model: str,
    device: torch.device,
    keep: Callable[[str, Image, Image | None], None] | None = None,
) -> SetResult:
    """Enlarge each image of a set and measure it against GT.

    Args:
        enlarge: from a batch of one image (``lq`` (1, C, h, w) in [0, 1], and ``gt`` where there is one) to SR
            (1, C, H, W) in [0, 1].
        loader: one image a batch.
        metrics: name -> option block with the ``type`` of a registered metric; none without GT.
        model: name for the result.
        device: where the images go.
        keep: called with each image's name, SR and GT (None where there is none), to save them.

    Returns:
        The values of each image. Metrics see 8-bit images in BGR, as BasicSR's do.
    """
    options = loader.dataset.opt  # type: ignore[attr-defined]
    result = SetResult(model, options["name"], lq=lq_kind(options))
    for data in loader:
        one = measure_image(enlarge, data, metrics, model=model, dataset=result.dataset, device=device)
        if keep is not None:
            keep(one.name, one.image, one.truth)
        for metric, value in one.values.items():
            result.per_image.setdefault(metric, {})[one.name] = value
    return result


def measure_image(
    enlarge: Callable[[dict[str, Any]], Tensor],
    data: dict[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    model: str,
    dataset: str,
    device: torch.device,
) -> Measured:
    """Enlarge one image and measure it against GT.

    Args:
        enlarge: as for ``measure``.
        data: a batch of one image, as a loader gives it.
        metrics: as for ``measure``.
        model: the model's name, for messages.
        dataset: the set's name, for messages.
        device: where the images go.

    Raises:
        UserError: if SR and GT differ in size, or a metric cannot measure them.
    """
    batch = to_model_batch(data, device)
    name = PurePath(batch["lq_path" if "lq_path" in batch else "gt_path"][0]).stem
    image = to_uint8(enlarge(batch))
    truth = to_uint8(batch["gt"]) if "gt" in batch else None
    if truth is None:
        return Measured(name, batch.get("lq"), image, None, {})
    if metrics and image.shape != truth.shape:
        raise UserError(
            f"{dataset}: {name}: {model} gives {_size(image)}, GT is {_size(truth)}; do network_g's scale "
            "and channels fit this set?"
        )
    values = {metric: metric_value(metric, block, name, image, truth) for metric, block in metrics.items()}
    return Measured(name, batch.get("lq"), image, truth, values)


def metric_value(metric: str, block: Mapping[str, Any], name: str, image: Image, truth: Image) -> float:
    """The value of ``val.metrics.METRIC`` for one image.

    Args:
        metric: its key in the options.
        block: its option block.
        name: the image's name, for messages.
        image: SR, (H, W, C) uint8 BGR.
        truth: GT in the same form.

    Raises:
        OptionError: if it cannot measure this image.
    """
    key = f"val.metrics.{metric}"
    options = {option: value for option, value in block.items() if option not in ("type", "better")}
    compute = lookup("metric", block["type"], f"{key}.type")
    try:
        return float(compute(img=image, img2=truth, **options))
    except (AssertionError, TypeError, ValueError, cv2.error) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OptionError(f"{key}: {block['type']} cannot measure {name} ({_size(image)}): {reason}") from error


def _size(image: Image) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} in {channels} channel{'s' if channels > 1 else ''}"


def model_enlarger(model: Any) -> Callable[[dict[str, Any]], Tensor]:
    """``enlarge`` for a BasicSR model: its own ``feed_data`` and ``test``."""

    def enlarge(batch: dict[str, Any]) -> Tensor:
        model.feed_data(batch)
        model.test()
        result: Tensor = model.get_current_visuals()["result"]
        return result

    return enlarge


def bicubic_enlarger(scale: int) -> Callable[[dict[str, Any]], Tensor]:
    """``enlarge`` by MATLAB bicubic, the baseline of every table."""
    return lambda batch: matlab_bicubic(batch["lq"], up=scale)


def to_uint8(image: Tensor) -> Image:
    """(1, C, H, W) RGB in [0, 1] -> (H, W, C) uint8 BGR, rounded half to even as BasicSR does."""
    levels = (image.detach()[0].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return np.ascontiguousarray(levels.transpose(1, 2, 0)[..., ::-1])


def write_image(image: Image, path: Path) -> None:
    """Write a PNG by way of a temporary name.

    Args:
        image: (H, W, 3) uint8 BGR.
        path: where; folders are made.

    Raises:
        UserError: if it cannot be written.
    """
    replace_file(path, encode_png(image, path))


def encode_png(image: Image, path: Path) -> bytes:
    """The content of a PNG file.

    Args:
        image: (H, W, 1 or 3) uint8 BGR.
        path: where it is to go, for the message.

    Raises:
        UserError: if PNG cannot hold such an image.
    """
    done, data = cv2.imencode(".png", image)
    if not done:
        raise UserError(f"{path}: PNG cannot hold an image of {image.shape}")
    return data.tobytes()
