"""The best mean of each metric on each validation set, over all iterations of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import is_count, read_lines
from gramgan_plugin.utils.metric_direction import lower_is_better
from gramgan_plugin.utils.sections import section


class BestSoFar:
    """Keeps the best values and their iterations; of equal values the first counts.

    Args:
        metrics: ``val.metrics`` of the options.
    """

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        self.lower = {name for name in metrics if lower_is_better(section(metrics, name))}
        self.found: dict[str, dict[str, tuple[float, int]]] = {}

    def read(self, file: Path, last: int) -> None:
        """Take the validations of a ``metrics.jsonl`` up to iteration ``last``; an unreadable file has none."""
        try:
            for _, record in read_lines(file) if file.is_file() else ():
                if "dataset" in record and is_count(record.get("iter")) and record["iter"] <= last:
                    values = section(record, "metrics").items()
                    numbers = {str(name): float(value) for name, value in values if isinstance(value, int | float)}
                    self.update(str(record["dataset"]), record["iter"], numbers)
        except (UserError, OverflowError):
            self.found = {}

    def update(self, dataset: str, iteration: int, means: Mapping[str, float]) -> dict[str, tuple[float, int]]:
        """Compare a validation's means with the best, and return the best of each metric and its iteration."""
        best = self.found.setdefault(dataset, {})
        for metric, value in means.items():
            before = best.get(metric)
            sign = -1 if metric in self.lower else 1
            if before is None or sign * value > sign * before[0]:
                best[metric] = (value, iteration)
        return {metric: best[metric] for metric in means}
