"""Read scores that were measured elsewhere (Ma's score, PI, a survey), to be shown in the same tables."""

import csv
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.metrics import LABELS
from gramgan_plugin.utils.text import did_you_mean, printable, shown

COLUMNS = ("model", "set", "image", "metric", "value")
BETTER = {"ma": "higher", "pi": "lower"}  # Ma's score; the perceptual index of PIRM 2018
DECIMALS = 3
LARGEST_SCORE = 1e9
LARGEST = 2**26  # bytes


@dataclass(frozen=True)
class Scores:
    """Scores of a file.

    Attributes:
        labels: its metrics, in the order of the file.
        values: (model, set) -> metric -> image -> value.
    """

    labels: list[MetricLabel] = field(default_factory=list)
    values: dict[tuple[str, str], dict[str, dict[str, float]]] = field(default_factory=dict)


def read_scores(
    path: Path, models: Collection[str], sets: Mapping[str, Collection[str]], measured: Collection[str]
) -> Scores:
    """Read and check a file of scores, before anything is measured.

    Args:
        path: a CSV file whose first line names the columns model, set, image, metric and value, and for metrics other
            than ma and pi the column better: higher or lower.
        models: the models' labels.
        sets: set -> names of its images.
        measured: the metrics that are measured here.

    Raises:
        UserError: if the file is not such a file, or a row fits no model, set and image, or is there twice.
    """
    found = Scores()
    labels: dict[str, MetricLabel] = {}
    with file_errors(path):
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: more than {LARGEST:,} bytes; is it a table of scores?")
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            try:
                rows = list(csv.DictReader(file))
            except csv.Error as error:
                raise UserError(f"{path}: not a CSV file ({error})") from error
    for number, row in enumerate(rows, 2):
        where = printable(f"{path}, line {number}")
        missing = [name for name in COLUMNS if not row.get(name)]
        if missing:
            raise UserError(f"{where}: no {missing[0]}; expected the columns {', '.join(COLUMNS)}")
        for kind, known in (("model", models), ("set", sets), ("image", sets.get(row["set"], ()))):
            if row[kind] not in known:
                raise UserError(f"{where}: no {kind} {shown(row[kind])!r}{did_you_mean(row[kind], known, '')}")
        metric = row["metric"]
        label = LABELS.get(metric) or MetricLabel(metric, metric, _direction(row, where), DECIMALS)
        if metric in measured or labels.setdefault(metric, label) != label:
            raise UserError(f"{where}: {shown(metric)!r} is measured here, or has another direction above; rename it")
        values = found.values.setdefault((row["model"], row["set"]), {}).setdefault(metric, {})
        if row["image"] in values:
            raise UserError(f"{where}: {shown(metric)!r} of this image is there already")
        values[row["image"]] = _number(row["value"], where)
    if not labels:
        raise UserError(f"{path}: no scores in it; its first line names the columns {', '.join(COLUMNS)}")
    found.labels.extend(labels.values())
    return found


def _direction(row: Mapping[str, str], where: str) -> Literal["higher", "lower"]:
    better = row.get("better") or BETTER.get(row["metric"].lower())
    if better == "higher":
        return "higher"
    if better == "lower":
        return "lower"
    raise UserError(f"{where}: the column better says higher or lower for {shown(row['metric'])!r}")


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST_SCORE:  # nor NaN
        raise UserError(f"{where}: {shown(text)!r} is not a number up to {LARGEST_SCORE:g}")
    return value
