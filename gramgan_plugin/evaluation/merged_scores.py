"""Read scores that were measured elsewhere (Ma's score, PI, a survey), to be shown in the same tables."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.utils.text import shown

COLUMNS = ("model", "set", "image", "metric", "value")
LARGEST = 2**26  # bytes


def merge_scores(results: Sequence[SetResult], path: Path) -> list[str]:
    """Add scores to results of the same model and set.

    Args:
        results: they are changed.
        path: a CSV file whose first line names the columns model, set, image, metric and value.

    Returns:
        The names of the metrics, in the order of the file.

    Raises:
        UserError: if the file is not such a file, or a row fits no result or is already there.
    """
    by_name = {(result.model, result.dataset): result for result in results}
    added: dict[str, None] = {}
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
            raise UserError(f"{where}: {shown(row['value'])!r} is no number")
        known = {name for values in result.per_image.values() for name in values}
        if row["image"] not in known:
            raise UserError(f"{where}: {shown(row['set'])!r} has no image {shown(row['image'])!r}")
        values = result.per_image.setdefault(row["metric"], {})
        if row["image"] in values:
            raise UserError(f"{where}: {shown(row['metric'])!r} of this image is there already")
        values[row["image"]] = value
        added[row["metric"]] = None
    return list(added)
