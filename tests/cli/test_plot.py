import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from gramgan_plugin.cli.main import main
from tests.messages import assert_message

RECORDS = [
    {"iter": 1, "epoch": 0, "lr": 1e-4, "l_g_pix": 0.5, "l_d_real": 0.3, "grad_norm_g": 2.0},
    {"iter": 2, "epoch": 0, "lr": 1e-4, "l_g_pix": 0.4, "l_d_real": None, "grad_norm_g": 2.0},
    {"iter": 2, "dataset": "Set5", "metrics": {"psnr": 30.0}},
]


@pytest.fixture
def runs(workdir: Path) -> Path:
    """Two runs under experiments/, and one elsewhere."""
    for folder in ("experiments/first", "experiments/second", "elsewhere/first", "experiments/quick/l1"):
        (workdir / folder).mkdir(parents=True)
        (workdir / folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return workdir


class TestPlot:
    def test_one_run(self, runs, capsys):
        for named, out in (
            ("first", "experiments/first/plot.png"),
            ("experiments/second", "experiments/second/plot.png"),
            ("elsewhere/first/metrics.jsonl", "elsewhere/first/plot.png"),
        ):
            assert main(["plot", named]) == 0
            assert capsys.readouterr().out == f"{out}: 1 run, 5 panels\n"
            assert cv2.imread(out).std() > 0

    def test_several_runs(self, runs, capsys):
        assert main(["plot", "first", "second", "elsewhere/first", "first", "--smooth", "3"]) == 0
        assert capsys.readouterr().out == "plot.png: 3 runs, 5 panels\n", "a run that is named twice is one"
        assert Path("plot.png").is_file()

    def test_chosen_curves_as_a_table(self, runs, capsys):
        command = ["plot", "first", "elsewhere/first", "--csv", "--out", "out/a.svg", "--metrics", "l_*", "psnr"]
        assert main(command) == 0
        assert capsys.readouterr().out == "out/a.svg: 2 runs, 3 panels\nout/a.csv: the same as a table\n"
        assert Path("out/a.csv").read_text().splitlines() == [
            "run,iter,l_g_pix,l_d_real,Set5 psnr",
            "experiments/first,1,0.5,0.3,",
            "experiments/first,2,0.4,,30.0",
            "elsewhere/first,1,0.5,0.3,",
            "elsewhere/first,2,0.4,,30.0",
        ]

    @pytest.mark.parametrize(("name", "panels"), [("l_g_pix", 1), ("psnr", 1), ("Set5 psnr", 1), ("l*", 3), ("*", 5)])
    def test_chosen_curves_only(self, runs, capsys, name, panels):
        assert main(["plot", "first", "second", "--metrics", name]) == 0
        assert f"2 runs, {panels} panel" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "where", "kind", "more"),
        [
            (["frist"], "frist", "no such run", "did you mean 'first'"),
            (["zzz"], "zzz", "no such run", "there are first, second"),
            (["quick"], "experiments/quick", "no metrics.jsonl", "runs in it: l1"),
            (["experiments/empty"], "experiments/empty", "no metrics.jsonl", "has training started"),
            (["first", "--metrics", "l_g_pxi"], "--metrics l_g_pxi", "no such curve", "did you mean 'l_g_pix'"),
            (["first", "--metrics", "zzz"], "--metrics zzz", "no such curve", "there are lr, l_g_pix, l_d_real"),
            (["first", "--out", "a.gif"], "a.gif", "has to end in", ".png"),
            (["bad.jsonl"], "bad.jsonl, line 1", "not a line of", "JSON"),
            (["empty.jsonl"], "empty", "nothing to draw", ""),
        ],
    )
    def test_one_line_and_exit_code_2(self, runs, capsys, arguments, where, kind, more):
        Path("experiments/empty").mkdir()
        Path("bad.jsonl").write_text("no\x1b[31m\n")
        Path("empty.jsonl").touch()
        assert main(["plot", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert_message(line, f"basicsr plot: {where}", kind, more)
        assert not list(runs.rglob("*.png"))

    @pytest.mark.parametrize("number", ["0", "x", "1.5"])
    def test_smooth(self, runs, capsys, number):
        with pytest.raises(SystemExit, match="2"):
            main(["plot", "first", "--smooth", number])
        assert "expected a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "absent"), [("['first']", {"torch", "basicsr"}), ("['--help']", {"torch", "basicsr", "matplotlib"})]
)
def test_it_is_light(runs, arguments, absent):
    code = (
        "import sys\nfrom gramgan_plugin.cli.main import main\n"
        f"try: main(['plot', *{arguments}])\nexcept SystemExit: pass\n"
        f"print(sorted({absent} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


class TestDamage:
    """Whatever a metrics.jsonl holds, there is a picture or one line."""

    @pytest.mark.parametrize("line", ["[" * 100_000, '{"iter":' * 100_000, "1" * 5000, '{"iter": 1' + "0" * 400 + "}"])
    def test_one_line(self, runs, capsys, line):
        path = Path("experiments/first/metrics.jsonl")
        path.write_text(path.read_text() + line + "\n")
        assert main(["plot", "first"]) == 2
        (printed,) = capsys.readouterr().err.splitlines()
        assert_message(printed, "basicsr plot: experiments/first/metrics.jsonl, line 4", "not a line of")

    def test_values_and_names(self, runs):
        path = Path("experiments/first/metrics.jsonl")
        odd = {"iter": 3, "l_g_pix": 10**300, "$\\frac": 1.0, "\n": -1e308, "_x": 1, "%s": 1e-320, "": 2}
        path.write_text(path.read_text() + json.dumps(odd) + '\n{"iter": 4, "\\ud800": 1e99}\n')
        assert main(["plot", "first", "--csv"]) == 0
        assert "\\ud800" in Path("experiments/first/plot.csv").read_text()

    def test_more_curves_than_a_picture_shows(self, runs, capsys):
        Path("experiments/first/metrics.jsonl").write_text(json.dumps({"iter": 1, **{f"k{n}": n for n in range(3000)}}))
        assert main(["plot", "first"]) == 2
        assert "3,000 panels are more" in capsys.readouterr().err
        assert main(["plot", "first", "--metrics", "k1?"]) == 0
