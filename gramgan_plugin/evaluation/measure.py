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
from gramgan_plugin.errors import OptionError, UserError, file_errors
from gramgan_plugin.evaluation.pictures import Image
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
    """

    model: str
    dataset: str
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)

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
            }
            for metric, mean in self.means().items()
        ]


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
    result = SetResult(model, loader.dataset.opt["name"])  # type: ignore[attr-defined]
    for data in loader:
        batch = to_model_batch(data, device)
        name = PurePath(batch["lq_path" if "lq_path" in batch else "gt_path"][0]).stem
        image = to_uint8(enlarge(batch))
        truth = to_uint8(batch["gt"]) if "gt" in batch else None
        if keep is not None:
            keep(name, image, truth)
        if truth is None:
            continue
        if metrics and image.shape != truth.shape:
            raise UserError(
                f"{result.dataset}: {name}: {model} gives {_size(image)}, GT is {_size(truth)}; do network_g's scale "
                "and channels fit this set?"
            )
        for metric, block in metrics.items():
            result.per_image.setdefault(metric, {})[name] = _value(f"val.metrics.{metric}", block, name, image, truth)
    return result


def _value(key: str, block: Mapping[str, Any], name: str, image: Image, truth: Image) -> float:
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
    done, data = cv2.imencode(".png", image)
    if not done:
        raise UserError(f"{path}: PNG cannot hold an image of {image.shape}")
    temporary = path.with_name(f".{path.name}.tmp")
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data.tobytes())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
