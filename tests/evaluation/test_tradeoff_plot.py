import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.published_scores import published_scores
from gramgan_plugin.evaluation.tables import result_tables
from gramgan_plugin.evaluation.tradeoff_plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, tradeoff_plot

LABELS = {
    name: MetricLabel(name, name, better, 3)
    for name, better in {"psnr_rgb": "higher", "psnr_y": "higher", "niqe": "lower", "lpips_vgg": "lower"}.items()
}


def _plot(values, name="Set5", published=True):
    results = [
        SetResult(model, name, {metric: {"x": value} for metric, value in metrics.items()})
        for model, metrics in values.items()
    ]
    tables = result_tables(results, LABELS)
    return tradeoff_plot(tables, tables.sets[0], published_scores(name) if published else {})


def test_own_and_published_points():
    plot = _plot({"a": {"psnr_rgb": 20.0, "psnr_y": 30.0, "niqe": 4.0, "lpips_vgg": 0.07}, "b": {"psnr_y": 31.0}})
    assert (plot.x_heading, plot.y_heading) == ("psnr_y ↑", "lpips_vgg ↓")
    assert [(point.mark, point.model) for point in plot.points] == [
        ("1", "a"),
        ("a", "ESRGAN"),
        ("b", "LDL"),
        ("c", "SeD"),
    ]
    assert [point.published for point in plot.points] == [False, True, True, True]
    assert plot.points[3].values == ("31.22", "0.064")
    assert "not checked" in plot.points[1].protocol


def test_places_agree_with_the_ticks():
    plot = _plot({"a": {"psnr_y": 30.0, "lpips_vgg": 0.07}, "b": {"psnr_y": 28.5, "lpips_vgg": 0.2}}, published=False)
    for axis, ticks in (("x", plot.x_ticks), ("y", plot.y_ticks)):
        (first, low), (last, high) = ticks[0], ticks[-1]
        for point in plot.points:
            share = (getattr(point, axis) - first) / (last - first)
            value = float(low) + share * (float(high) - float(low))
            assert value == pytest.approx(float(point.values[axis == "y"]), abs=0.01)


def test_other_metrics_have_no_published_points():
    assert len(_plot({"a": {"psnr_y": 30.0, "niqe": 4.0}}).points) == 1
    assert len(_plot({"a": {"psnr_rgb": 30.0, "lpips_vgg": 0.1}}).points) == 1
    assert len(_plot({"a": {"psnr_y": 30.0, "lpips_vgg": 0.1}}, "my photos").points) == 1


def test_no_plot():
    assert _plot({"a": {"psnr_y": 30.0}}) is None
    assert _plot({"a": {"niqe": 3.0}}) is None
    assert _plot({"a": {"psnr_y": 30.0}, "b": {"niqe": 3.0}}) is None, "no model has both"


def test_marks_of_equal_points_are_apart():
    plot = _plot({str(i): {"psnr_y": 30.0, "lpips_vgg": 0.1} for i in range(6)}, published=False)
    marks = [(point.mark_x, point.mark_y) for point in plot.points]
    assert min(math.dist(a, b) for i, a in enumerate(marks) for b in marks[:i]) > 9


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 1e5)), min_size=1, max_size=5))
def test_all_points_are_inside(values):
    plot = _plot({str(i): {"psnr_y": x, "lpips_vgg": y} for i, (x, y) in enumerate(values)}, published=False)
    assert all(LEFT <= point.x <= WIDTH - RIGHT and TOP <= point.y <= HEIGHT - BOTTOM for point in plot.points)
    assert 2 <= len(plot.x_ticks) <= 8
    assert len({text for _, text in plot.x_ticks}) == len(plot.x_ticks)
