"""Draw the same crop of a validation image over the course of training: bicubic, SR over time, GT."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gramgan_plugin.errors import OptionError, file_errors
from gramgan_plugin.evaluation.measure import Measured, metric_value, to_uint8, write_image
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.utils.io import parse_json, save_json
from gramgan_plugin.utils.pictures import Image, detailed_window, labelled

CROP = 160
SHOWN = 6  # number of validations
COLUMNS = 4
LEAST_WIDTH = 200  # pixels of a panel, so that its label fits


@dataclass(frozen=True)
class Crops:
    """The same crop of all versions of one image, each (h, w, 3) uint8 BGR.

    Attributes:
        name: the image's name.
        sr: SR.
        psnr: SR's PSNR in dB over the whole image, or None.
        before: label -> crop shown before SR.
        after: label -> crop shown after SR.
    """

    name: str
    sr: Image
    psnr: float | None
    before: dict[str, Image]
    after: dict[str, Image]


def cut_crops(measured: Measured, metrics: Mapping[str, Mapping[str, Any]]) -> Crops | None:
    """Return the crops of one image where GT (or, without GT, the bicubic enlargement) has the most detail.

    Args:
        measured: the image; the place does not depend on SR, so it is the same in each validation.
        metrics: the options' ``val.metrics``; the first PSNR among them is shown.

    Returns:
        The crops, or None for an image with nothing of SR's size to compare with.
    """
    key = next((metric for metric, block in metrics.items() if "psnr" in str(block.get("type"))), None)
    bicubic, truth = _bicubic(measured), measured.truth
    if measured.image is None:
        return None
    if truth is not None and truth.shape != measured.image.shape:
        truth = None
    reference = truth if truth is not None else bicubic
    if reference is None:
        return None
    window = detailed_window(_colour(reference), CROP)
    before, after = {}, {}
    if bicubic is not None:
        psnr = None
        if key is not None and truth is not None:
            with contextlib.suppress(OptionError):
                psnr = metric_value(key, metrics[key], measured.name, bicubic, truth)
        before[_label("bicubic", psnr)] = _colour(bicubic)[window]
    if truth is not None:
        after["GT"] = _colour(truth)[window]
    return Crops(
        measured.name,
        _colour(measured.image)[window],
        measured.values.get(key) if key is not None else None,
        before,
        after,
    )


def update_over_time(folder: Path, iteration: int, crops: Crops) -> None:
    """Save this validation's crop as ``NAME/ITERATION.png`` and draw ``NAME.png`` again.

    The first and the newest validation are kept, and others between them, spread as evenly as possible. Crops of later
    iterations are deleted: they are from before the run was resumed at an earlier checkpoint.

    Args:
        folder: the set's folder.
        iteration: iteration of this validation.
        crops: this validation's crops.

    Raises:
        UserError: if a file cannot be written.
    """
    own = folder / crops.name
    write_image(crops.sr, own / f"{iteration}.png")
    values = _read_values(own / "psnr.json") | {str(iteration): crops.psnr}
    there = sorted(int(path.stem) for path in own.glob("*.png") if path.stem.isdigit())
    kept = thinned([one for one in there if one <= iteration], SHOWN)
    with file_errors(own):
        for one in set(there) - set(kept):
            (own / f"{one}.png").unlink(missing_ok=True)
    values = {key: value for key, value in values.items() if key.isdigit() and int(key) in kept}
    save_json(values, own / "psnr.json")

    shown = dict(crops.before)
    for one in kept:
        image = crops.sr if one == iteration else cv2.imread(str(own / f"{one}.png"))
        if image is not None and image.shape == crops.sr.shape:  # else it is damaged, or of a different GT
            shown[_label(f"iter {one}", values.get(str(one)))] = image
    shown |= crops.after
    zoom = max(2, math.ceil(LEAST_WIDTH / crops.sr.shape[1]))
    write_image(labelled(shown, zoom=zoom, columns=COLUMNS), folder / f"{crops.name}.png")


def thinned(iterations: list[int], most: int) -> list[int]:
    """Return at most ``most`` of ascending iterations: the first, the last, and some evenly spread between them.

    Surplus ones are removed where the gap between their neighbours is smallest. If this is repeated for each added
    iteration, they stay evenly spread.

    >>> kept = []
    >>> for iteration in range(1, 12):
    ...     kept = thinned([*kept, iteration], 6)
    >>> kept
    [1, 3, 5, 7, 9, 11]
    """
    kept = list(iterations)
    while len(kept) > max(2, most):
        gaps = [kept[i + 1] - kept[i - 1] for i in range(1, len(kept) - 1)]
        del kept[1 + gaps.index(min(gaps))]
    return kept


def _bicubic(measured: Measured) -> Image | None:
    """Return LQ enlarged to the size of SR, or None if the factor is not a whole number."""
    lq = measured.lq
    if lq is None or lq.ndim != 4 or measured.image is None:
        return None
    height, width = measured.image.shape[:2]
    factor = max(1, height // lq.shape[2])
    if (lq.shape[2] * factor, lq.shape[3] * factor, lq.shape[1]) != (height, width, measured.image.shape[2]):
        return None
    return to_uint8(matlab_bicubic(lq, up=factor))


def _colour(image: Image) -> Image:
    return image if image.shape[2] == 3 else np.repeat(image[:, :, :1], 3, axis=2)


def _label(text: str, psnr: float | None) -> str:
    return text if psnr is None else f"{text}, {psnr:.2f} dB"


def _read_values(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        values = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is None or isinstance(value, float | int)}
    return {}
