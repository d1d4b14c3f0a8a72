"""Curves of a run's metrics.jsonl."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError


def read_metrics(path: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[tuple[int, float]]]]:
    """The curves in a run's metrics.jsonl.

    Args:
        path: the file.

    Returns:
        Losses (``l_*`` key -> (iteration, value) pairs) and validation means (``SET metric`` -> the same). Where a
        resumed run has an iteration twice, the later line counts.

    Raises:
        UserError: if the file is missing or a line of it is not JSON.
    """
    losses: dict[str, dict[int, float]] = {}
    metrics: dict[str, dict[int, float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            record: dict[str, Any] = json.loads(line)
            iteration = int(record["iter"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: not a line of metrics") from error
        for key, value in record.items():
            if key.startswith("l_"):
                losses.setdefault(key, {})[iteration] = float(value)
        for metric, value in (record.get("metrics") or {}).items():
            metrics.setdefault(f"{record.get('dataset')} {metric}", {})[iteration] = float(value)
    sort = {name: sorted(points.items()) for name, points in losses.items()}
    return sort, {name: sorted(points.items()) for name, points in metrics.items()}


def plot_losses(runs: Mapping[str, Path], out: Path) -> None:
    """Draw each run's losses, on a logarithmic axis, and write them as a PNG.

    Args:
        runs: title -> the run's metrics.jsonl; a panel each.
        out: where the picture goes.

    Raises:
        UserError: if a file cannot be read or the picture cannot be written.
    """
    # The object interface: no window system is asked for, and no global state is left.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(runs), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, path) in enumerate(runs.items(), start=1):
        axes = figure.add_subplot(1, len(runs), place)
        losses, _ = read_metrics(path)
        for key, points in losses.items():
            axes.plot(*zip(*points, strict=True), label=key, linewidth=1.2)
        axes.set(title=title, xlabel="iteration", yscale="log")
        axes.grid(alpha=0.3)
        if losses:
            axes.legend(fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=110)
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{out}: the picture cannot be written: {error}") from error
