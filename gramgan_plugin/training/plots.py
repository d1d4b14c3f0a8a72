"""Draw the curves of runs. matplotlib is imported when a picture is drawn."""

import io
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from gramgan_plugin.errors import UserError
from gramgan_plugin.training.curves import Curve, Metrics, read_metrics, smoothed
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.text import printable

FORMATS = (".png", ".svg", ".pdf")
MOST_PANELS = 100
STYLES = ("-", "--", ":", "-.")  # after each ten colours the next one
FEW_POINTS = 30  # at most so many are marked: a single point is not visible as a line


class Panel(NamedTuple):
    """One coordinate system: its title, the keys of its curves (globs), and whether its axis is logarithmic."""

    title: str
    keys: tuple[str, ...]
    logarithmic: bool = False


# In this order. Validation comes after the losses; a curve that fits no panel gets its own.
LOSSES = (Panel("G's losses", ("l_g_*",), True), Panel("D's losses", ("l_d_*",), True), Panel("losses", ("l_*",), True))
PANELS = (
    Panel("learning rate", ("lr",)),
    Panel("gradient of each term at SR", ("grad_g_*",), True),
    Panel("gradient of all weights", ("grad_norm_*",), True),
    Panel("share of images that D classifies correctly", ("d_accuracy",)),
    Panel("D's mean logits", ("out_d_*",)),
    Panel("shares: pixels that D sees, candidates chosen", ("mask_share", "gram_*")),
    Panel("SR's contrast over GT's", ("sr_contrast",)),
    Panel("images per second", ("images_per_s",)),
    Panel("seconds per iteration", ("time", "data_time"), True),
    Panel("fp16: scale of the loss", ("loss_scale",), True),
    Panel("skipped steps", ("skipped_steps",)),
)


class Line(NamedTuple):
    """One curve of a panel."""

    label: str
    curve: Curve
    smooth: bool


def plot_losses(runs: Mapping[str, Path], out: Path) -> None:
    """Draw each run's losses, on a logarithmic axis, and write them as a PNG.

    Args:
        runs: title -> the run's metrics.jsonl; a panel each.
        out: the picture.

    Raises:
        UserError: if a file cannot be read or the picture cannot be written.
    """
    panels: list[tuple[str, bool, list[Line]]] = []
    for title, path in runs.items():
        training = read_metrics(path).training
        panels.append((title, True, [Line(key, curve, False) for key, curve in training.items() if key[:2] == "l_"]))
    _draw(panels, out, columns=len(panels), window=1)


def plot_runs(runs: Mapping[str, Metrics], out: Path, window: int = 1) -> int:
    """Draw one run's curves, related ones in one panel; or several runs, a panel for each curve, a colour for each run.

    Args:
        runs: label -> its curves.
        out: the picture: .png, .svg or .pdf.
        window: draw training's curves as means over this many points, with the points themselves behind them.

    Returns:
        The number of panels.

    Raises:
        UserError: if there is nothing to draw, or the picture cannot be written.
    """
    panels = _panels_of_one(next(iter(runs.values()))) if len(runs) == 1 else _panels_of_several(runs)
    if not panels:
        raise UserError(f"{' and '.join(runs)}: nothing to draw; no iteration has been logged")
    if len(panels) > MOST_PANELS:
        raise UserError(f"{len(panels):,d} panels are more than a picture can show; choose curves by --metrics")
    _draw(panels, out, columns=min(3, len(panels)), window=window)
    return len(panels)


def _panels_of_one(metrics: Metrics) -> list[tuple[str, bool, list[Line]]]:
    left = dict(metrics.training)
    panels: list[tuple[str, bool, list[Line]]] = []

    def take(panel: Panel) -> None:
        keys = [key for key in left if any(fnmatchcase(key, pattern) for pattern in panel.keys)]
        if keys:
            panels.append((panel.title, panel.logarithmic, [Line(key, left.pop(key), key != "lr") for key in keys]))

    for panel in LOSSES:
        take(panel)
    for metric in dict.fromkeys(metric for _, metric in metrics.validation):
        sets = {dataset: curve for (dataset, name), curve in metrics.validation.items() if name == metric}
        panels.append((f"validation: {metric}", False, [Line(name, curve, False) for name, curve in sets.items()]))
    for panel in (*PANELS, *(Panel(key, (key,)) for key in list(left))):
        take(panel)
    return panels


def _panels_of_several(runs: Mapping[str, Metrics]) -> list[tuple[str, bool, list[Line]]]:
    """Return a panel for each curve that any run has, in the order of ``_panels_of_one``."""
    curves = {label: metrics.by_name() for label, metrics in runs.items()}
    names = dict.fromkeys(name for own in curves.values() for name in own)
    validated = {f"{dataset} {metric}" for metrics in runs.values() for dataset, metric in metrics.validation}

    def place(name: str) -> tuple[int, bool]:
        if name in validated:
            return len(LOSSES), False
        for number, panel in enumerate((*LOSSES, Panel("validation", ()), *PANELS)):
            if any(fnmatchcase(name, pattern) for pattern in panel.keys):
                return number, panel.logarithmic
        return len(LOSSES) + len(PANELS) + 1, False

    return [
        (
            name,
            place(name)[1],
            # A run without the curve is drawn empty, so that each run's colour stays the same.
            [Line(label, own.get(name, []), name not in validated and name != "lr") for label, own in curves.items()],
        )
        for name in sorted(names, key=lambda name: place(name)[0])
    ]


def _draw(panels: list[tuple[str, bool, list[Line]]], out: Path, columns: int, window: int) -> None:
    # The object interface needs no window system and leaves no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if out.suffix.lower() not in FORMATS:
        raise UserError(f"{out}: the picture's name has to end in {', '.join(FORMATS)}")
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(6 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, logarithmic, lines) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for number, line in enumerate(lines):
            style = {"color": f"C{number % 10}", "linestyle": STYLES[number // 10 % len(STYLES)]}
            _draw_line(axes, line, style, window if line.smooth else 1)
        values = [value for line in lines for _, value in line.curve if value == value]
        axes.set(title=_escaped(title), xlabel="iteration")
        axes.set_yscale("log" if logarithmic and values and min(values) > 0 else "linear")
        axes.grid(alpha=0.3)
        if any(line.curve for line in lines):
            axes.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix.lower()[1:], dpi=110)
    replace_file(out, picture.getvalue())


def _draw_line(axes: Any, line: Line, style: Mapping[str, str], window: int) -> None:
    # matplotlib leaves labels that are empty or begin with an underscore out of the legend.
    label = _escaped(f" {line.label}" if line.label[:1] in ("", "_") else line.label)
    marker = "." if len(line.curve) <= FEW_POINTS else None
    if window > 1:
        axes.plot(*zip(*line.curve, strict=True), linewidth=0.8, alpha=0.25, **style)
        axes.plot(*zip(*smoothed(line.curve, window), strict=True), label=label, linewidth=1.4, **style)
        return
    axes.plot(*zip(*line.curve, strict=True), label=label, linewidth=1.2, marker=marker, markersize=4, **style)


def _escaped(text: str) -> str:
    """Escape text from files: one line, and no dollar read as mathematics."""
    return printable(text).replace("$", r"\$")
