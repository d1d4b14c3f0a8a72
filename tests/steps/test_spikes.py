import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gramgan_plugin.steps.spikes import WINDOW, GradientSpikes, LossPeak
from gramgan_plugin.steps.update import Update

CPU = torch.device("cpu")


def _judge(spikes: GradientSpikes, *norms: float, name: str = "g") -> list[float]:
    return [float(spikes.excess(name, torch.tensor(norm))) for norm in norms]


class TestGradientSpikes:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(0.0625, 128.0, width=32), min_size=1, max_size=150), st.floats(1.5, 20.0))
    def test_against_plain_python(self, norms, ratio):
        spikes, seen = GradientSpikes(["g"], ratio, CPU), []
        for norm in norms:
            usual, times = statistics.median_low(seen[-WINDOW:]) if seen else math.nan, 1.0
            if len(seen) >= WINDOW // 2 and norm / usual > ratio:
                times = norm / usual
            assert _judge(spikes, norm) == [pytest.approx(times, rel=1e-5)]
            seen.append(norm / times)

    def test_spikes_never_become_usual_but_growth_does(self):
        spikes = GradientSpikes(["g"], 10.0, CPU)
        assert _judge(spikes, *[1.0] * WINDOW) == [1.0] * WINDOW
        assert _judge(spikes, *[1e6] * 3 * WINDOW) == [1e6] * 3 * WINDOW
        assert _judge(spikes, *[9.0] * WINDOW, *[80.0] * WINDOW) == [1.0] * 2 * WINDOW

    def test_a_network_that_had_no_gradient_may_get_one(self):
        spikes = GradientSpikes(["g"], 10.0, CPU)
        assert _judge(spikes, *[0.0] * WINDOW, *[5.0] * WINDOW, 20.0, 200.0) == [1.0] * 2 * WINDOW + [1.0, 40.0]

    def test_what_is_not_finite_is_not_usual(self):
        spikes = GradientSpikes(["g"], 10.0, CPU)
        _judge(spikes, *[1.0] * WINDOW, *[math.nan, math.inf] * WINDOW)
        assert torch.equal(spikes.norms["g"], torch.ones(WINDOW))

    def test_each_network_by_its_own_median(self):
        spikes = GradientSpikes(["g", "d"], 10.0, CPU)
        _judge(spikes, *[1.0] * WINDOW)
        _judge(spikes, *[100.0] * WINDOW, name="d")
        assert _judge(spikes, 20.0) == [20.0]
        assert _judge(spikes, 500.0, 5000.0, name="d") == [1.0, 50.0]

    def test_state(self):
        one, other = (GradientSpikes(["g"], 10.0, CPU) for _ in range(2))
        _judge(one, *map(float, range(1, 50)))
        other.load_state_dict(one.state_dict())
        assert torch.equal(one.norms["g"].nan_to_num(-1), other.norms["g"].nan_to_num(-1))
        other.load_state_dict({})
        for junk in ([1.0], torch.zeros(3), torch.zeros(WINDOW, dtype=torch.int8), "text"):
            with pytest.raises(ValueError, match="'g' does not hold 64 gradient norms"):
                other.load_state_dict({"g": junk})


class TestHeldBack:
    def test_the_step_is_that_of_a_usual_gradient_and_is_reported(self):
        nets, optimizers, updates = [], [], []
        for ratio in (10, None):
            torch.manual_seed(0)
            nets.append(nn.Linear(3, 1))
            optimizers.append(torch.optim.Adam(nets[-1].parameters(), lr=0.1, fused=True))
            updates.append(Update({"g": optimizers[-1]}, {"g": nets[-1]}, max_grad_ratio=ratio))
        norms: list[float] = []
        for iteration in range(1, 50):
            usual = 1.0 + 0.01 * iteration
            spike = iteration == 45
            for net, update in zip(nets, updates, strict=True):
                update.begin()
                # The other run sees, in the place of the spike, a gradient of the median norm.
                factor = 1000.0 if spike else usual
                if spike and update.spikes is None:
                    factor = 1000.0 * statistics.median_low(norms) / (1000.0 * math.sqrt(3))
                (net.weight * factor).sum().backward()
                norm = float(update.finish({}, iteration)["grad_norm_g"])
            norms.append(norm)
            assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(*(n.parameters() for n in nets), strict=True))
        report = updates[0].report()
        assert (report.held_back, report.held_back_from, report.count, report.longest) == (1, 45, 0, 0)
        assert report.times_median == pytest.approx(1000 * math.sqrt(3) / statistics.median_low(norms[:44]), rel=1e-5)
        assert "1 step held back since the last log: from iteration 45" in next(report.lines(finds_scale=False))[1]
        assert updates[0].report().held_back == 0

    def test_clipping_sees_the_gradient_that_is_left(self):
        net = nn.Linear(3, 1, bias=False)
        update = Update(
            {"g": torch.optim.SGD(net.parameters(), lr=1.0)}, {"g": net}, max_grad_ratio=10, clip={"g": 1.0}
        )
        for iteration in range(1, 41):
            before = net.weight.detach().clone()
            update.begin()
            (net.weight * (1000.0 if iteration == 40 else 0.1)).sum().backward()
            update.finish({}, iteration)
            torch.testing.assert_close(before - net.weight, torch.full((1, 3), 0.1))  # the usual one is not clipped

    @pytest.mark.parametrize("broken", [False, True])
    def test_the_report_counts_all_but_skipped_steps(self, broken):
        net = nn.Linear(3, 1, bias=False)
        update = Update({"g": torch.optim.SGD(net.parameters(), lr=0.0)}, {"g": net}, max_grad_ratio=10)
        for iteration in range(1, 44):
            update.begin()
            (net.weight * {41: 1000.0, 42: 100.0}.get(iteration, 1.0)).sum().backward()
            update.finish({"l_g": torch.tensor(math.nan if broken and iteration in (41, 42) else 1.0)}, iteration)
        report = update.report()
        assert report.count == (2 if broken else 0)
        found = (report.held_back, report.held_back_from, report.times_median)
        assert found == ((0, 0, 0) if broken else (2, 41, pytest.approx(1000, rel=1e-5)))

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
