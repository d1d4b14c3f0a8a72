"""Read the curves in a run's metrics.jsonl. Imports neither torch nor matplotlib."""

import csv
import io
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import is_count, read_lines, replace_file

Curve = list[tuple[int, float]]  # (iteration, value), by iteration; a value that is not finite is nan
MOST_ITERATIONS = 10**15
LARGEST = 1e100  # matplotlib's arithmetic overflows long before a float does
NO_CURVES = ("iter", "epoch", "dataset", "metrics")


class Metrics(NamedTuple):
    """The curves of a run.

    Attributes:
        training: by the log's key (``l_g_pix``, ``lr``, ``grad_g_pix``, ...).
        validation: by (data set, metric).
    """

    training: dict[str, Curve]
    validation: dict[tuple[str, str], Curve]

    def by_name(self) -> dict[str, Curve]:
        """Return all curves by name, those of validation as ``SET METRIC``."""
        return self.training | {f"{dataset} {metric}": curve for (dataset, metric), curve in self.validation.items()}


def read_metrics(path: Path) -> Metrics:
    """Return the curves in a run's metrics.jsonl.

    Where a resumed run has an iteration twice, the later line counts. A last line that is cut short, by a kill or
    because the run is writing it, is skipped.

    Args:
        path: the file.

    Raises:
        UserError: if the file is missing, or a line of it is not one of metrics.
    """
    training: dict[str, dict[int, float]] = {}
    validation: dict[tuple[str, str], dict[int, float]] = {}
    for number, record in read_lines(path):
        iteration, metrics = record.get("iter"), record.get("metrics") or {}
        if not is_count(iteration) or iteration > MOST_ITERATIONS or not isinstance(metrics, Mapping):
            raise UserError(f"{path}, line {number}: not a line of metrics")
        for key, value in record.items():
            if key not in NO_CURVES and _is_a_value(value):
                training.setdefault(key, {})[iteration] = _number(value)
        for metric, value in metrics.items():
            if _is_a_value(value):
                validation.setdefault((str(record.get("dataset")), metric), {})[iteration] = _number(value)
    return Metrics(
        {name: sorted(points.items()) for name, points in training.items()},
        {name: sorted(points.items()) for name, points in validation.items()},
    )


def smoothed(curve: Curve, window: int) -> Curve:
    """Return a curve of means over the ``window`` points around each point, fewer at the ends.

    >>> smoothed([(10, 0.0), (20, 3.0), (30, 6.0), (40, 0.0)], 3)
    [(10, 1.5), (20, 3.0), (30, 3.0), (40, 3.0)]
    """
    before, after = (window - 1) // 2, window // 2
    result = []
    for place, (iteration, _) in enumerate(curve):
        near = [value for _, value in curve[max(0, place - before) : place + after + 1] if value == value]
        result.append((iteration, sum(near) / len(near) if near else float("nan")))
    return result


def write_csv(runs: Mapping[str, Mapping[str, Curve]], out: Path) -> None:
    """Write curves as a table for spreadsheets: a row for each run and iteration, a column for each curve.

    Args:
        runs: run -> curve's name -> curve. A missing value is left empty.
        out: the file.

    Raises:
        UserError: if it cannot be written.
    """
    names = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["run", "iter", *names])
    for run, curves in runs.items():
        values = {name: dict(curve) for name, curve in curves.items()}
        for iteration in sorted({iteration for points in values.values() for iteration in points}):
            row = [values.get(name, {}).get(iteration, float("nan")) for name in names]
            writer.writerow([run, iteration, *("" if value != value else repr(value) for value in row)])
    replace_file(out, table.getvalue().encode("utf-8", "backslashreplace"))  # JSON can hold half a character


def matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that match a pattern: a name, a glob, or a validation metric of any set."""
    return [name for name in names if fnmatchcase(name, pattern) or name.partition(" ")[2] == pattern]


def _is_a_value(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(value: float | None) -> float:
    """Return ``value``, or nan for null, which stands for a non-finite value, and for what is too large to draw."""
    return float("nan") if value is None or not abs(value) <= LARGEST else float(value)
