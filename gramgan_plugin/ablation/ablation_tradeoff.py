"""Draw perception against distortion for the variants of an ablation."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.over_seeds import OverSeeds
from gramgan_plugin.evaluation.tradeoff_plot import DISTORTION, PERCEPTION
from gramgan_plugin.utils.io import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.0, 3.8  # inches of a panel
IN_A_LINE = 6  # variants of the legend


def draw_tradeoff(summary: Sequence[OverSeeds], metrics: Mapping[str, MetricLabel], out: Path) -> bool:
    """Draw a panel for each set and perceptual metric, and write them as a PNG; better is always up and right.

    A number stands at a variant's mean over its seeds, a small dot for each seed. Bicubic is left out: it is so far
    away that the others would be one point.

    Args:
        summary: the results over seeds.
        metrics: metric -> how it is labelled.
        out: the picture.

    Returns:
        False, if there are no two metrics to draw against each other.

    Raises:
        UserError: if the file cannot be written.
    """
    across = next((name for name in DISTORTION if name in metrics), None)
    up = [name for name in PERCEPTION if name in metrics]
    rows = [row for row in summary if row.variant != "bicubic"]
    if across is None or not up or not rows:
        return False
    stream = io.BytesIO()
    tradeoff_figure(rows, metrics, across, up).savefig(stream, format="png", metadata={"Software": None})
    replace_file(out, stream.getvalue())
    return True


def tradeoff_figure(
    rows: Sequence[OverSeeds], metrics: Mapping[str, MetricLabel], across: str, up: Sequence[str]
) -> "Figure":
    """Return the figure: a line of panels for each set; see ``draw_tradeoff``.

    Args:
        rows: the results to show.
        metrics: metric -> how it is labelled.
        across: the metric of the horizontal axis.
        up: the metrics of the vertical axes, a panel each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets, variants = list(dict.fromkeys(row.dataset for row in rows)), list(dict.fromkeys(row.variant for row in rows))
    size = (WIDTH * len(up), HEIGHT * len(sets) + 0.3 * (1 + len(variants) // IN_A_LINE))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(sets), len(up), squeeze=False)
    for line, dataset in zip(panels, sets, strict=True):
        found = {(row.variant, row.metric): row for row in rows if row.dataset == dataset}
        for axes, metric in zip(line, up, strict=True):
            for place, variant in enumerate(variants):
                _draw(axes, place, found.get((variant, across)), found.get((variant, metric)))
            axes.set(xlabel=metrics[across].heading, ylabel=metrics[metric].heading, title=dataset)
            for axis, name in ((axes.xaxis, across), (axes.yaxis, metric)):
                axis.set_inverted(metrics[name].better == "lower")
            axes.grid(alpha=0.3)
    shown = [panels[0, 0].plot([], [], **_style(place), label=f"{place + 1} {name}")[0]
             for place, name in enumerate(variants)]  # fmt: skip
    figure.legend(handles=shown, loc="outside lower center", ncols=IN_A_LINE, fontsize="small")
    return figure


def _draw(axes: Any, place: int, x: OverSeeds | None, y: OverSeeds | None) -> None:
    if x is None or y is None:
        return
    style = _style(place)
    axes.plot([x.mean], [y.mean], **style)
    axes.annotate(str(place + 1), (x.mean, y.mean), xytext=(5, 4), textcoords="offset points", fontsize="small")
    seeds = sorted(x.per_seed.keys() & y.per_seed.keys())
    if len(seeds) > 1:
        dots = [x.per_seed[seed] for seed in seeds], [y.per_seed[seed] for seed in seeds]
        axes.plot(*dots, ".", color=style["color"], markersize=4)


def _style(place: int) -> dict[str, Any]:
    """Return the look of a variant's mean: ten colours, then the next shape."""
    return {"linestyle": "", "color": f"C{place % 10}", "marker": "os^D"[place // 10 % 4], "markersize": 7}
