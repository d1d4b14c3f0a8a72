import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gramgan_plugin.steps import Update
from gramgan_plugin.steps.spikes import WINDOW, GradientSpikes, LossPeak

CPU = torch.device("cpu")


class TestGradientSpikes:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(0.0625, 128.0, width=32), min_size=1, max_size=150), st.floats(1.5, 20.0))
    def test_against_plain_python(self, norms, ratio):
        spikes, seen = GradientSpikes(["g"], ratio, CPU), []
        for norm in norms:
            found = float(spikes.judge({"g": torch.tensor(norm)}))
            usual = sorted(seen[-WINDOW:])
            times = norm / usual[(len(usual) - 1) // 2] if len(usual) >= WINDOW // 2 else 0.0  # the lower median
            assert found == pytest.approx(times if times > ratio else 0.0, rel=1e-5)
            seen.append(norm)

    def test_larger_for_good_is_usual_after_half_a_window(self):
        spikes = GradientSpikes(["g"], 10.0, CPU)
        held = [float(spikes.judge({"g": torch.tensor(value)})) > 0 for value in [1.0] * WINDOW + [100.0] * WINDOW]
        assert held == [False] * WINDOW + [True] * (WINDOW // 2 + 1) + [False] * (WINDOW // 2 - 1)

    def test_what_is_not_finite_is_not_usual(self):
        spikes = GradientSpikes(["g"], 10.0, CPU)
        for value in [1.0] * WINDOW + [math.nan, math.inf] * WINDOW:
            spikes.judge({"g": torch.tensor(value)})
        assert torch.equal(spikes.norms["g"], torch.ones(WINDOW))

    def test_each_network_by_its_own_median(self):
        spikes = GradientSpikes(["g", "d"], 10.0, CPU)
        for _ in range(WINDOW):
            assert float(spikes.judge({"g": torch.tensor(1.0), "d": torch.tensor(100.0)})) == 0
        assert float(spikes.judge({"g": torch.tensor(2.0), "d": torch.tensor(5000.0)})) == 50
        assert float(spikes.judge({"g": torch.tensor(20.0)})) == 20

    def test_state(self):
        one, other = (GradientSpikes(["g"], 10.0, CPU) for _ in range(2))
        for value in range(50):
            one.judge({"g": torch.tensor(float(value))})
        other.load_state_dict(one.state_dict())
        assert torch.equal(one.norms["g"].nan_to_num(-1), other.norms["g"].nan_to_num(-1))
        other.load_state_dict({})
        for junk in ([1.0], torch.zeros(3), torch.zeros(WINDOW, dtype=torch.int8), "text"):
            with pytest.raises(ValueError, match="'g' does not hold 64 gradient norms"):
                other.load_state_dict({"g": junk})


class TestHeldBack:
    def test_the_step_never_happened_and_is_reported(self):
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
        update = Update({"g": optimizer}, {"g": net}, max_grad_ratio=10)
        norms = []
        for iteration in range(1, 50):
            before = [p.detach().clone() for p in net.parameters()]
            update.begin()
            (net.weight * (1000.0 if iteration == 45 else 1.0 + 0.01 * iteration)).sum().backward()
            norms.append(float(update.finish({}, iteration)["grad_norm_g"]))
            same = all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))
            assert same is (iteration == 45)
        report = update.report()
        assert (report.held_back, report.held_back_from, report.count, report.longest) == (1, 45, 0, 0)
        assert report.times_median == pytest.approx(norms[44] / statistics.median_low(norms[:44]), rel=1e-5)
        assert "1 step held back since the last log: from iteration 45" in report.held_back_line()
        assert update.report().held_back == 0

    def test_off(self):
        update = Update({"g": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)}, {})
        assert update.spikes is None
        assert update.report().held_back == 0


class TestLossPeak:
    def test_feature(self):
        peak = LossPeak(CPU)
        for iteration, value in enumerate([0.1, 369.0, math.nan, math.inf, 0.2], start=1):
            peak.note(torch.tensor(value), iteration)
        assert peak.take() == {"loss_peak": 369.0, "loss_peak_iter": 2.0}
        assert peak.take() == {}
