"""How the report words differences."""

import pytest

from gramgan_plugin.ablation.ablation_report import _difference, _markdown
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.report_page import ModelDifference
from gramgan_plugin.evaluation.statistics import Difference

PSNR, NIQE = MetricLabel("psnr_y", "PSNR-Y", "higher", 2, "dB"), MetricLabel("niqe", "NIQE", "lower", 2)


@pytest.mark.parametrize(
    ("label", "values", "text"),
    [
        (PSNR, (0.5, 0.25, 0.75), "+0.50 [+0.25, +0.75] better"),
        (NIQE, (0.5, 0.25, 0.75), "+0.50 [+0.25, +0.75] worse"),
        (PSNR, (-0.5, -0.75, 0.25), "-0.50 [-0.75, +0.25] unclear"),
        (PSNR, (0.003, 0.001, 0.004), "±0"),
        (PSNR, (-0.003, -0.004, -0.001), "±0"),
        (PSNR, (0.004, 0.001, 0.006), "+0.00 [+0.00, +0.01] better"),
        (PSNR, (0.5, None, None), "+0.50 (one image: no interval)"),
        (PSNR, (0.001, None, None), "+0.00 (one image: no interval)"),
    ],
)
def test_words(label, values, text):
    difference = Difference(*values, n=5, method="BCa" if values[1] is not None else "none")
    assert _difference(ModelDifference("a", "Set5", label.name, "b", difference), label) == text


@pytest.mark.parametrize(("seeds", "warned"), [(["3", "–"], False), (["3", "1"], True)])
def test_one_seed_beside_several(seeds, warned):
    rows = [{"set": "Set5", "variant": str(place), "seeds": n, "cells": [["1"]]} for place, n in enumerate(seeds)]
    assert ("the seed's" in _markdown(rows, {"psnr_y": PSNR}, "0")) is warned
