"""The plot of perception against distortion, by what its figure holds."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from gramgan_plugin.ablation.ablation_tradeoff import draw_tradeoff, tradeoff_figure
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.over_seeds import OverSeeds

METRICS = {
    "psnr_y": MetricLabel("psnr_y", "PSNR-Y", "higher", 2, "dB"),
    "niqe": MetricLabel("niqe", "NIQE", "lower", 2),
    "texture": MetricLabel("texture", "texture", "lower", 3),
}
SUMMARY = [
    OverSeeds("bicubic", "Set5", "psnr_y", {0: 20.0}, 20.0, None),
    OverSeeds("bicubic", "Set5", "niqe", {0: 20.0}, 20.0, None),
    OverSeeds("a", "Set5", "psnr_y", {0: 30.0, 1: 32.0, 2: 31.0}, 31.0, 1.0),
    OverSeeds("a", "Set5", "niqe", {0: 5.0, 1: 7.0}, 6.0, 1.4),
    OverSeeds("b_2", "Set5", "psnr_y", {0: 28.0}, 28.0, None),
    OverSeeds("b_2", "Set5", "niqe", {0: 4.0}, 4.0, None),
]


def test_feature_points() -> None:
    (axes,) = tradeoff_figure(SUMMARY[2:], METRICS, "psnr_y", ["niqe"]).axes
    points = [tuple(map(list, line.get_data())) for line in axes.lines if len(line.get_data()[0])]
    assert points == [([31.0], [6.0]), ([30.0, 32.0], [5.0, 7.0]), ([28.0], [4.0])]
    assert (axes.xaxis.get_inverted(), axes.yaxis.get_inverted()) == (False, True), "better is up and right"
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    assert axes.get_title() == "Set5"
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.texts] == ["1 a", "2 b_2"]


def test_feature_many_variants_look_different() -> None:
    rows = [OverSeeds(f"v{n}", "Set5", name, {0: float(n)}, float(n), None) for n in range(25) for name in METRICS]
    figure = tradeoff_figure(rows, METRICS, "psnr_y", ["niqe", "texture"])
    assert len(figure.axes) == 2
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[1].lines}
    assert len(looks) == 25


def test_smoke_picture(tmp_path: Path) -> None:
    assert draw_tradeoff(SUMMARY, METRICS, tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert np.ptp(picture) == 255


@pytest.mark.parametrize("names", [["psnr_y"], ["niqe"], []])
def test_feature_nothing_to_draw(tmp_path: Path, names: list[str]) -> None:
    assert not draw_tradeoff(SUMMARY, {name: METRICS[name] for name in names}, tmp_path / "a.png")
    assert not draw_tradeoff(SUMMARY[:2], METRICS, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
