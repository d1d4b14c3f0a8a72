import cv2
import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.plots import plot_losses, read_metrics

LINES = (
    '{"iter": 10, "lr": 0.1, "l_g_pix": 0.5, "grad_g_pix": 2.0}\n'
    '{"iter": 20, "lr": 0.1, "l_g_pix": 0.25, "l_d_real": 0.3}\n'
    '{"iter": 20, "dataset": "Set5", "metrics": {"psnr": 30.0}}\n'
    '{"iter": 20, "lr": 0.1, "l_g_pix": 0.2, "l_d_real": 0.1}\n'
)


class TestReadMetrics:
    def test_feature(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text(LINES)
        losses, metrics = read_metrics(tmp_path / "metrics.jsonl")
        assert losses == {"l_g_pix": [(10, 0.5), (20, 0.2)], "l_d_real": [(20, 0.1)]}
        assert metrics == {"Set5 psnr": [(20, 30.0)]}

    @pytest.mark.parametrize("text", ["nonsense\n", "[1]\n", '{"l_g_pix": 1}\n'])
    def test_exception(self, tmp_path, text):
        (tmp_path / "metrics.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: not a line of metrics"):
            read_metrics(tmp_path / "metrics.jsonl")
        with pytest.raises(UserError, match=r"absent\.jsonl: cannot be read"):
            read_metrics(tmp_path / "absent.jsonl")


class TestPlotLosses:
    def test_a_panel_a_run(self, tmp_path):
        (tmp_path / "a.jsonl").write_text(LINES)
        (tmp_path / "empty.jsonl").write_text("")
        plot_losses({"one": tmp_path / "a.jsonl"}, tmp_path / "one.png")
        plot_losses({"one": tmp_path / "a.jsonl", "none": tmp_path / "empty.jsonl"}, tmp_path / "out" / "two.png")
        one, two = cv2.imread(str(tmp_path / "one.png")), cv2.imread(str(tmp_path / "out/two.png"))
        assert two.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
        assert not list(tmp_path.rglob("*.tmp"))
