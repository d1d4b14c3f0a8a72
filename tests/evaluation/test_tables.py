import csv
import io

import numpy as np
import pytest

from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.tables import latex_table, markdown_table, per_image_csv, result_tables

LABELS = {
    "psnr_y": MetricLabel("psnr_y", "PSNR-Y", "higher", 2, "dB"),
    "lpips": MetricLabel("lpips", "LPIPS", "lower", 3),
    "niqe": MetricLabel("niqe", "NIQE", "lower", 2),
}
NAMES = [f"photo{i}" for i in range(8)]
HARD = dict(zip(NAMES, np.linspace(-3, 3, 8).tolist(), strict=True))  # more than the models differ
EVEN = dict(zip(NAMES, [0.1, -0.1] * 4, strict=True))


def _results():
    """Two models that differ by chance, one that is worse in all images."""
    rough = SetResult("rough", "Set5", {"psnr_y": {n: 27 + HARD[n] for n in NAMES}, "lpips": dict.fromkeys(NAMES, 0.3)})
    first = SetResult("first", "Set5", {"psnr_y": {n: 30 + HARD[n] for n in NAMES}, "lpips": dict.fromkeys(NAMES, 0.1)})
    other = SetResult("other", "Set5", {"psnr_y": {n: 29.99 + HARD[n] + EVEN[n] for n in NAMES}, "lpips": {}})
    other.per_image["lpips"] = dict.fromkeys(NAMES[:-1], 0.2)
    other.left_out["lpips"] = {NAMES[-1]: "too small"}
    return [rough, first, other]


class TestResultTables:
    def test_places(self):
        tables = result_tables(_results(), LABELS)
        assert [metric.name for metric in tables.metrics] == ["psnr_y", "lpips"], "NIQE was not measured"
        (table,) = tables.sets
        assert (table.name, table.n) == ("Set5", 8)
        psnr = [cells[0] for _, cells in table.rows]
        assert [cell.text for cell in psnr] == ["27.00", "30.00", "29.99"]
        assert [cell.place for cell in psnr] == [0, 1, 2]
        assert [cell.close for cell in psnr] == [False, False, True]
        lpips = [cells[1] for _, cells in table.rows]
        assert [cell.place for cell in lpips] == [0, 1, 2]
        assert [cell.n for cell in lpips] == [8, 8, 7]
        assert not any(cell.close for cell in lpips), "the same difference in all images"

    def test_the_same_number_is_the_same_place(self):
        values = {"a": 30.001, "b": 30.004, "c": 29.0}
        results = [SetResult(model, "S", {"psnr_y": {"x": value}}) for model, value in values.items()]
        cells = [row[1][0] for row in result_tables(results, LABELS).sets[0].rows]
        assert [cell.place for cell in cells] == [1, 1, 2]
        assert [cell.close for cell in cells] == [True, False, True], "of one image nothing is sure"

    def test_one_model_has_no_place(self):
        assert result_tables(_results()[:1], LABELS).sets[0].rows[0][1][0].place == 0

    def test_missing_in_a_set(self):
        results = [*_results(), SetResult("first", "Set14", {"niqe": {"baboon": 4.0}}, without_gt=["psnr_y"])]
        tables = result_tables(results, LABELS)
        cells = tables.sets[1].rows[0][1]
        assert [cell and cell.text for cell in cells] == [None, None, "4.00"]
        assert "| Set14 | 1 | first |  |  | 4.00 |" in markdown_table(tables)
        assert r"Set14 ($n = 1$) & first & -- & -- & 4.00 \\" in latex_table(tables)

    def test_exception(self):
        with pytest.raises(ValueError, match="no label for psnr_y"):
            result_tables(_results(), {"lpips": LABELS["lpips"]})


class TestMarkdown:
    def test_table(self):
        lines = markdown_table(result_tables(_results(), LABELS)).splitlines()
        assert lines[:5] == [
            "| set | n | model | PSNR-Y (dB) ↑ | LPIPS ↓ |",
            "|---|---:|---|---:|---:|",
            "| Set5 | 8 | rough | 27.00 | 0.300 |",
            "| Set5 | 8 | first | **30.00** | **0.100** |",
            "| Set5 | 8 | other | <u>29.99</u>† | <u>0.200</u> (n = 7) |",
        ]
        assert lines[-1] == "- LQ of Set5: not recorded"

    def test_names_are_escaped(self):
        result = SetResult("a|b_*c*<script>\n# x", "[S](http://x)", {"psnr_y": {"x": 1.0}})
        text = markdown_table(result_tables([result], LABELS))
        assert r"| \[S\](http://x) | 1 | a\|b\_\*c\*&lt;script&gt;\\n# x | 1.00 |" in text

    def test_nothing_measured(self):
        assert markdown_table(result_tables([SetResult("a", "S")], LABELS)) == "no metric was measured\n"


class TestLatex:
    def test_table(self):
        text = latex_table(result_tables(_results(), LABELS))
        assert r"Set & Model & PSNR-Y (dB) $\uparrow$ & LPIPS $\downarrow$ \\" in text
        assert r"Set5 ($n = 8$) & rough & 27.00 & 0.300 \\" in text
        assert r"     & first & \textbf{30.00} & \textbf{0.100} \\" in text
        assert r"     & other & \underline{29.99}$^\dagger$ & \underline{0.200} ($n = 7$) \\" in text
        assert r"\begin{tabular}{llrr}" in text
        assert r"the 95 \% bootstrap" in text
        assert [rule for rule in ("toprule", "midrule", "bottomrule") if text.count(f"\\{rule}") != 1] == []

    def test_names_are_escaped(self):
        result = SetResult(r"a_b & 50% #1 \input{x} ~^$ --- [2]", "S\n<1>", {"psnr_y": {"x": 1.0}})
        text = latex_table(result_tables([result], LABELS))
        expected = (
            r"a\_b \& 50\% \#1 \textbackslash{}input\{x\} \textasciitilde{}\textasciicircum{}\$ -{}-{}- {[}2{]} &"
        )
        assert expected in text
        assert r"S\textbackslash{}n\textless{}1\textgreater{} ($n = 1$)" in text


class TestPerImage:
    def test_rows(self):
        rows = list(csv.DictReader(io.StringIO(per_image_csv(_results()))))
        assert len(rows) == 3 * 2 * 8
        own = [row for row in rows if (row["model"], row["metric"]) == ("other", "lpips")]
        assert [float(row["value"]) for row in own[:-1]] == [0.2] * 7
        assert own[-1] == {
            "set": "Set5",
            "model": "other",
            "metric": "lpips",
            "image": "photo7",
            "value": "",
            "left_out": "too small",
        }
        psnr = {
            row["image"]: float(row["value"]) for row in rows if (row["model"], row["metric"]) == ("first", "psnr_y")
        }
        assert psnr == _results()[1].per_image["psnr_y"], "all digits"

    def test_formulas_are_text(self):
        result = SetResult("@SUM(A1)", "-1+2", {"psnr_y": {"=cmd|' /C calc'!A0": -1.5, "\tx": 1.0, '"a",b': 2.0}})
        rows = list(csv.reader(io.StringIO(per_image_csv([result]))))[1:]
        assert [row[3] for row in rows] == ["'=cmd|' /C calc'!A0", "\\tx", '"a",b']
        assert rows[0][:3] == ["'-1+2", "'@SUM(A1)", "psnr_y"]
        assert rows[0][4] == "-1.5", "a number stays one"
