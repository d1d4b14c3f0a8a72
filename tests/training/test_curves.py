import csv
import math

import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.training.curves import matching, read_metrics, smoothed, write_csv

LINES = (
    '{"iter": 10, "epoch": 0, "lr": 0.1, "l_g_pix": 0.5, "grad_g_pix": 2.0}\n'
    '{"iter": 20, "epoch": 0, "lr": 0.1, "l_g_pix": 0.25, "l_d_real": 0.3}\n'
    '{"iter": 20, "dataset": "Set5", "metrics": {"psnr": 30.0}}\n'
    '{"iter": 20, "epoch": 0, "lr": 0.1, "l_g_pix": 0.2, "l_d_real": 0.1}\n'
)


class TestReadMetrics:
    def test_feature(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text(LINES)
        metrics = read_metrics(tmp_path / "metrics.jsonl")
        assert metrics.training == {
            "lr": [(10, 0.1), (20, 0.1)],
            "l_g_pix": [(10, 0.5), (20, 0.2)],
            "l_d_real": [(20, 0.1)],
            "grad_g_pix": [(10, 2.0)],
        }
        assert metrics.validation == {("Set5", "psnr"): [(20, 30.0)]}
        assert list(metrics.by_name()) == ["lr", "l_g_pix", "grad_g_pix", "l_d_real", "Set5 psnr"]

    def test_what_is_no_number(self, tmp_path):
        # NaN and Infinity as runs of earlier versions have them.
        values = ("null", "NaN", "Infinity", "-Infinity", str(10**400), "-1e300")
        lines = [f'{{"iter": {number}, "l_g_pix": {value}}}\n' for number, value in enumerate(values)]
        (tmp_path / "m").write_text("".join(lines) + '{"iter": 8, "l_g_pix": 1.5, "note": "x", "flag": true}\n')
        training = read_metrics(tmp_path / "m").training
        assert list(training) == ["l_g_pix"]
        assert [math.isnan(value) for _, value in training["l_g_pix"]] == [True] * 6 + [False]

    def test_a_line_cut_short(self, tmp_path):
        (tmp_path / "m").write_text(LINES + '{"iter": 30, "l_g_pi')
        assert read_metrics(tmp_path / "m").training["l_g_pix"] == [(10, 0.5), (20, 0.2)]

    @pytest.mark.parametrize(
        "text",
        [
            '{"l_g_pix": 1}\n',
            '{"iter": "x"}\n',
            '{"iter": 1, "metrics": 3}\n',
            '{"iter": true, "l_g_pix": 1}\n',
            '{"iter": -1, "l_g_pix": 1}\n',
            f'{{"iter": {10**400}, "l_g_pix": 1}}\n',
        ],
    )
    def test_exception(self, tmp_path, text):
        (tmp_path / "metrics.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: not a line"):
            read_metrics(tmp_path / "metrics.jsonl")


class TestSmoothed:
    def test_feature(self):
        curve = [(i, float(v)) for i, v in enumerate([4, 8, 6, 2, 0])]
        assert smoothed(curve, 1) == curve
        assert [v for _, v in smoothed(curve, 3)] == [6, 6, 16 / 3, 8 / 3, 1]
        assert [v for _, v in smoothed(curve, 2)] == [6, 7, 4, 1, 0]

    def test_gaps(self):
        nan = float("nan")
        values = [value for _, value in smoothed([(0, 1.0), (1, nan), (2, 3.0), (3, nan), (4, nan), (5, nan)], 3)]
        assert values[:4] == [1, 2, 3, 3]
        assert all(math.isnan(value) for value in values[4:])


def test_matching():
    names = ["l_g_pix", "l_g_gram", "lr", "Set5 psnr", "Set14 psnr"]
    assert matching(names, "l_g_*") == ["l_g_pix", "l_g_gram"]
    assert matching(names, "psnr") == ["Set5 psnr", "Set14 psnr"]
    assert matching(names, "Set5 psnr") == ["Set5 psnr"]
    assert matching(names, "l_g") == []


class TestWriteCsv:
    def test_feature(self, tmp_path):
        runs = {"a": {"x": [(1, 0.5), (2, float("nan"))], "y": [(2, 4.0)]}, "b,c": {"y": [(1, 1e-300)]}}
        write_csv(runs, tmp_path / "new/t.csv")
        with (tmp_path / "new/t.csv").open(newline="") as stream:
            rows = list(csv.reader(stream))
        assert rows == [
            ["run", "iter", "x", "y"],
            ["a", "1", "0.5", ""],
            ["a", "2", "", "4.0"],
            ["b,c", "1", "", "1e-300"],
        ]

    def test_exception(self, tmp_path):
        (tmp_path / "t.csv").mkdir()
        with pytest.raises(UserError, match=r"t\.csv: a folder where a file should be"):
            write_csv({}, tmp_path / "t.csv")
        assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
