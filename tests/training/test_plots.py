import cv2
import numpy as np
import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.training import plots
from gramgan_plugin.training.curves import Metrics
from gramgan_plugin.training.plots import plot_losses, plot_runs

LINES = (
    '{"iter": 10, "lr": 0.1, "l_g_pix": 0.5, "grad_g_pix": 2.0}\n'
    '{"iter": 20, "lr": 0.1, "l_g_pix": 0.25, "l_d_real": 0.3}\n'
)
CURVE = [(10, 0.5), (20, 0.25), (30, 0.125)]
TRAINING = [
    "epoch_like",
    "lr",
    "time",
    "data_time",
    "l_g_pix",
    "l_g_gram",
    "l_d_real",
    "l_d_fake",
    "grad_g_pix",
    "grad_norm_g",
    "out_d_real",
    "d_accuracy",
    "mask_share",
    "gram_original",
    "sr_contrast",
    "images_per_s",
    "loss_scale",
    "skipped_steps",
]
EVERYTHING = Metrics(
    dict.fromkeys(TRAINING, CURVE), {(name, metric): CURVE for metric in ("psnr", "ssim") for name in ("Set5", "B")}
)

SMALL = Metrics({"l_g_pix": CURVE, "lr": CURVE}, {("Set5", "psnr"): CURVE})


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, in place of the drawing: [(title, logarithmic, [labels])]."""
    panels = []

    def note(found, out, columns, window):
        panels.extend((title, log, [line.label for line in lines if line.curve]) for title, log, lines in found)

    monkeypatch.setattr(plots, "_draw", note)
    return panels


class TestPlotLosses:
    def test_a_panel_a_run(self, tmp_path):
        (tmp_path / "a.jsonl").write_text(LINES)
        (tmp_path / "empty.jsonl").write_text("")
        plot_losses({"one": tmp_path / "a.jsonl"}, tmp_path / "one.png")
        plot_losses({"one": tmp_path / "a.jsonl", "none": tmp_path / "empty.jsonl"}, tmp_path / "out" / "two.png")
        one, two = cv2.imread(str(tmp_path / "one.png")), cv2.imread(str(tmp_path / "out/two.png"))
        assert two.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
        assert not list(tmp_path.rglob("*.tmp"))

    def test_losses_only(self, tmp_path, drawn):
        (tmp_path / "a.jsonl").write_text(LINES)
        plot_losses({"one": tmp_path / "a.jsonl"}, tmp_path / "one.png")
        assert drawn == [("one", True, ["l_g_pix", "l_d_real"])]


class TestOneRun:
    def test_curves_of_a_kind_together(self, tmp_path, drawn):
        assert plot_runs({"a": EVERYTHING}, tmp_path / "a.png") == len(drawn)
        by_title = {title: labels for title, _, labels in drawn}
        titles = list(by_title)
        assert titles[:5] == ["G's losses", "D's losses", "validation: psnr", "validation: ssim", "learning rate"]
        assert by_title["G's losses"] == ["l_g_pix", "l_g_gram"]
        assert by_title["D's losses"] == ["l_d_real", "l_d_fake"]
        assert by_title["validation: psnr"] == ["Set5", "B"]
        assert by_title["gradient of each term at SR"] == ["grad_g_pix"]
        assert by_title["shares: pixels that D sees, candidates chosen"] == ["mask_share", "gram_original"]
        assert by_title["epoch_like"] == ["epoch_like"], "what is not known has a panel, too"
        drawn_once = sorted(label for title, _, labels in drawn for label in labels if "validation" not in title)
        assert drawn_once == sorted(TRAINING)
        assert {title for title, log, _ in drawn if not log} >= {"learning rate", "validation: psnr"}


class TestSeveralRuns:
    def test_a_panel_a_curve(self, tmp_path, drawn):
        other = Metrics({"l_g_pix": CURVE, "l_g_x": CURVE}, {("Set5", "psnr"): CURVE})
        plot_runs({"a": EVERYTHING, "b": other}, tmp_path / "a.png")
        by_title = {title: labels for title, _, labels in drawn}
        assert list(by_title)[:3] == ["l_g_pix", "l_g_gram", "l_g_x"]
        assert by_title["l_g_pix"] == ["a", "b"]
        assert by_title["l_g_x"] == ["b"]
        assert by_title["Set5 psnr"] == ["a", "b"]
        assert set(by_title) == {*TRAINING, "l_g_x", "Set5 psnr", "Set5 ssim", "B psnr", "B ssim"}

    @pytest.mark.filterwarnings("ignore:No artists with labels")
    def test_a_run_has_one_colour(self, tmp_path, monkeypatch):
        colours = []
        monkeypatch.setattr(
            plots,
            "_draw_line",
            lambda axes, line, style, window: colours.append((line.label, style["color"], style["linestyle"])),
        )
        both = {"a": Metrics({"l_g_x": CURVE}, {}), "b": Metrics({"l_g_pix": CURVE, "l_g_x": CURVE}, {})}
        plot_runs(both, tmp_path / "a.png")
        assert set(colours) == {("a", "C0", "-"), ("b", "C1", "-")}
        colours.clear()
        plot_runs({str(number): SMALL for number in range(24)}, tmp_path / "a.png")
        looks = {label: (colour, style) for label, colour, style in colours}
        assert len(set(looks.values())) == 24, "each run is drawn in its own way"


class TestPicture:
    @pytest.mark.parametrize("window", [1, 3])
    def test_smoke(self, tmp_path, window):
        plot_runs({"a": SMALL, "b": SMALL}, tmp_path / "two.png", window)
        picture = cv2.imread(str(tmp_path / "two.png"))
        assert picture.std() > 5
        assert [path.name for path in tmp_path.iterdir()] == ["two.png"]

    def test_formats(self, tmp_path):
        for suffix, start in ((".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")):
            plot_runs({"a": SMALL}, tmp_path / f"x{suffix}")
            assert (tmp_path / f"x{suffix}").read_bytes().startswith(start)

    @pytest.mark.filterwarnings("error")
    def test_names_and_values_of_any_kind(self, tmp_path):
        nan = float("nan")
        odd = {
            "l_g_$x^{$": CURVE,
            "_l": CURVE,
            "l_g_nan": [(1, nan)],
            "l_g_one": [(1, 1.0)],
            "l_d_0": [(1, 0.0), (2, -1.0)],
            "a\nb": CURVE,
            "none": [],
        }
        plot_runs({"_$a$": Metrics(odd, {})}, tmp_path / "a.png", 3)
        plot_runs({"_$a$": Metrics(odd, {}), "_$b$": Metrics(odd, {})}, tmp_path / "b.svg")
        text = (tmp_path / "b.svg").read_text()
        assert "l_g_$x^{$" in text, "a dollar is no mathematics"
        assert "_$b$" in text, "an underscore hides nothing from the legend"

    def test_one_point_is_seen(self, tmp_path):
        colours = []
        for name, curve in (("dot", [(5, 0.7)]), ("nothing", [])):
            plot_runs({"a": Metrics({"lr": CURVE, "d_accuracy": curve}, {})}, tmp_path / f"{name}.png")
            picture = cv2.imread(str(tmp_path / f"{name}.png")).astype(int)
            right = picture[:, picture.shape[1] * 55 // 100 :]  # the panel of the accuracy
            legend = right[: right.shape[0] // 3]
            assert (np.abs(legend[..., 0] - legend[..., 2]).max() > 50) == (name == "dot"), "the label, with its line"
            below = right[right.shape[0] // 3 :]
            colours.append(np.abs(below[..., 0] - below[..., 2]).max())
        assert colours[0] > 50 > colours[1]

    def test_exception(self, tmp_path):
        with pytest.raises(UserError, match="nothing to draw"):
            plot_runs({"a": Metrics({}, {})}, tmp_path / "a.png")
        with pytest.raises(UserError, match=r"a\.jpg: .* \.png, \.svg, \.pdf"):
            plot_runs({"a": SMALL}, tmp_path / "a.jpg")
        (tmp_path / "a.png").mkdir()
        with pytest.raises(UserError, match=r"a\.png: a folder where a file should be"):
            plot_runs({"a": SMALL}, tmp_path / "a.png")
