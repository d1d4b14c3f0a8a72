"""Read scores that were measured elsewhere (Ma's score, PI, a survey), to be shown in the same tables."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.utils.text import shown

COLUMNS = ("model", "set", "image", "metric", "value")
BETTER = {"ma": "higher", "pi": "lower"}  # Ma's score; the perceptual index of PIRM 2018
LARGEST = 2**26  # bytes


def merge_scores(results: Sequence[SetResult], path: Path) -> list[MetricLabel]:
    """Add scores to results of the same model and set.

    Args:
        results: they are changed.
        path: a CSV file whose first line names the columns model, set, image, metric and value, and for metrics other
            than ma and pi the column better: higher or lower.

    Returns:
        The metrics, in the order of the file.

    Raises:
        UserError: if the file is not such a file, or a row fits no result or is already there.
    """
    by_name = {(result.model, result.dataset): result for result in results}
    added: dict[str, MetricLabel] = {}
    with file_errors(path):
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: more than {LARGEST:,} bytes; is it a table of scores?")
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, 2):
        where = f"{path}, line {number}"
        missing = [name for name in COLUMNS if not row.get(name)]
        if missing:
            raise UserError(f"{where}: no {missing[0]}; expected the columns {', '.join(COLUMNS)}")
        result = by_name.get((row["model"], row["set"]))
        if result is None:
            there = ", ".join(f"{model} on {name}" for model, name in by_name)
            raise UserError(f"{where}: no model {shown(row['model'])!r} on {shown(row['set'])!r}; there are {there}")
        try:
            value = float(row["value"])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{where}: {shown(row['value'])!r} is not a finite number")
        known = {name for values in result.per_image.values() for name in values}
        if row["image"] not in known:
            raise UserError(f"{where}: {shown(row['set'])!r} has no image {shown(row['image'])!r}")
        values = result.per_image.setdefault(row["metric"], {})
        if row["image"] in values:
            raise UserError(f"{where}: {shown(row['metric'])!r} of this image is there already")
        values[row["image"]] = value
        better = row.get("better") or BETTER.get(row["metric"].lower())
        if better not in ("higher", "lower"):
            raise UserError(f"{where}: the column better says higher or lower for {shown(row['metric'])!r}")
        label = MetricLabel(row["metric"], row["metric"], "higher" if better == "higher" else "lower", 3)
        if added.setdefault(row["metric"], label) != label:
            raise UserError(f"{where}: {shown(row['metric'])!r} is better if it is {better} here, and not above")
    return list(added.values())
