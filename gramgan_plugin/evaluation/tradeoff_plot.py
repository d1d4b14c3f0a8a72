"""Lay out the plot of perception against distortion: a point per model, and published ones where they fit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.published_scores import PublishedScore
from gramgan_plugin.evaluation.tables import ARROWS, ResultTables, SetTable

WIDTH, HEIGHT = 560, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 48  # margins
DISTORTION = ("psnr_y", "psnr")
PERCEPTION = ("lpips", "dists", "niqe", "texture")
PUBLISHED = ("psnr_y", "lpips")


@dataclass(frozen=True)
class Point:
    """A point of the plot.

    Attributes:
        mark: the number or letter beside it.
        model: the model's name.
        x, y: place in pixels.
        mark_x, mark_y: place of the middle of the mark, beside the point.
        values: its two numbers, as text.
        protocol: of a published point, in words; "measured here" for others.
        published: whether it comes from a published table.
    """

    mark: str
    model: str
    x: float
    y: float
    mark_x: float
    mark_y: float
    values: tuple[str, str]
    protocol: str
    published: bool


@dataclass(frozen=True)
class TradeoffPlot:
    """A plot, in pixels of a picture of ``WIDTH`` x ``HEIGHT``.

    Attributes:
        x_heading, y_heading: names of the axes, with an arrow to the better values.
        x_ticks, y_ticks: place and text of each tick.
        points: own points, then published ones.
    """

    x_heading: str
    y_heading: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    points: list[Point]


def tradeoff_plot(
    tables: ResultTables, table: SetTable, published: Mapping[str, Mapping[str, PublishedScore]]
) -> TradeoffPlot | None:
    """Return the plot of a set, or None if no model has both a distortion and a perception metric.

    Distortion is PSNR (on Y if it was measured); perception is the first of LPIPS, DISTS, NIQE and texture distance.
    Published points are added for PSNR-Y and LPIPS only, the two metrics that they have.

    Args:
        tables: all tables, for the metrics.
        table: the set's.
        published: the set's published scores: model -> metric -> score.
    """
    axes = _first(tables.metrics, DISTORTION), _first(tables.metrics, PERCEPTION)
    if axes[0] is None or axes[1] is None:
        return None
    x_label, y_label = tables.metrics[axes[0]], tables.metrics[axes[1]]
    raw: list[tuple[str, str, float, float, tuple[str, str], str, bool]] = []
    for number, (model, cells) in enumerate(table.rows, start=1):
        x, y = cells[axes[0]], cells[axes[1]]
        if x is not None and y is not None:
            raw.append((str(number), model, x.value, y.value, (x.text, y.text), "measured here", False))
    if not raw:
        return None
    if x_label.name == PUBLISHED[0] and y_label.name.startswith(PUBLISHED[1]):
        fitting = [(model, scores) for model, scores in published.items() if {*PUBLISHED} <= {*scores}]
        for letter, (model, scores) in zip(ascii_lowercase, fitting, strict=False):
            psnr, lpips = (scores[metric] for metric in PUBLISHED)
            numbers = (psnr.value, lpips.value)
            raw.append((letter, model, float(psnr.value), float(lpips.value), numbers, psnr.protocol, True))
    x_scale = _Scale([one[2] for one in raw], LEFT, WIDTH - RIGHT)
    y_scale = _Scale([one[3] for one in raw], HEIGHT - BOTTOM, TOP)
    places = [(x_scale.place(one[2]), y_scale.place(one[3])) for one in raw]
    marks = _beside(places)
    points = [
        Point(mark, model, *place, *mark_place, values, protocol, published)
        for (mark, model, _, _, values, protocol, published), place, mark_place in zip(raw, places, marks, strict=True)
    ]
    return TradeoffPlot(_heading(x_label), _heading(y_label), x_scale.ticks(), y_scale.ticks(), points)


def _first(metrics: Sequence[MetricLabel], prefixes: Sequence[str]) -> int | None:
    found = (i for prefix in prefixes for i, metric in enumerate(metrics) if metric.name.startswith(prefix))
    return next(found, None)


def _beside(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a place for the mark of each point: near it, and away from other points and marks as far as possible."""
    taken = list(places)
    for x, y in places:
        turns = [(radius, math.pi * eighth / 4) for radius in (14, 20, 28) for eighth in range(-2, 6)]
        near = [
            (round(x + radius * math.cos(turn), 1), round(y + radius * math.sin(turn), 1)) for radius, turn in turns
        ]
        taken.append(max(near, key=lambda place: min(13.0, *(math.dist(place, other) for other in taken))))
    return taken[len(places) :]


def _heading(label: MetricLabel) -> str:
    return f"{label.heading} {ARROWS[label.better]}"


class _Scale:
    """Maps values to pixels, with round numbers as ticks."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        span, largest = max(values) - min(values), max(map(abs, values))
        if span <= 1e-9 * max(largest, 1.0):  # equal but for rounding
            span = largest if largest > 1e-9 else 1.0
        power = 10.0 ** math.floor(math.log10(span / 4))
        self.step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / 4 * (1 - 1e-9))
        self.first = math.floor(min(values) / self.step - 0.25)
        self.last = math.ceil(max(values) / self.step + 0.25)
        self.start, self.end = start, end

    def place(self, value: float) -> float:
        share = (value / self.step - self.first) / (self.last - self.first)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        values = [count * self.step for count in range(self.first, self.last + 1)]
        return [(self.place(value), f"{value:.{decimals}f}") for value in values]
