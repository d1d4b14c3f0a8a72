import math

import pytest
import torch

from gramgan_plugin.models.schedules import CosineRestartWarmupLR


def _optimizer(lr: float = 1e-4) -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=lr)


def _rate(iteration: int) -> float:
    """The schedule of a 600k run as the description has it, for a 1-based iteration."""
    t = (iteration - 1) % 200000
    if t < 2000:
        return 1e-4 * (t + 1) / 2000
    return 1e-7 + (1e-4 - 1e-7) * (1 + math.cos(math.pi * (t - 2000) / 198000)) / 2


class TestCosineRestartWarmupLR:
    @pytest.mark.parametrize(
        "iteration",
        [
            1,
            2,
            1999,
            2000,
            2001,
            101000,
            199999,
            200000,
            200001,
            202000,
            202001,
            400000,
            400001,
            600000,
            600001,
            700000,
        ],
    )
    def test_feature(self, iteration):
        schedule = CosineRestartWarmupLR(_optimizer(), period=200000, warmup_iter=2000, eta_min=1e-7)
        schedule.last_epoch = iteration - 1
        assert schedule.get_lr()[0] == pytest.approx(_rate(iteration), rel=1e-12)

    def test_known_points(self):
        assert _rate(1) == pytest.approx(5e-8)
        assert _rate(2000) == pytest.approx(1e-4)
        assert _rate(101001 + 0) == pytest.approx((1e-4 + 1e-7) / 2)

    def test_stepping_through_two_cycles(self):
        optimizer = _optimizer(1.0)
        schedule = CosineRestartWarmupLR(optimizer, period=10, warmup_iter=3, eta_min=0.1)
        rates = []
        for _ in range(20):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        cosine = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 7)) / 2 for k in range(7)]
        assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, *cosine] * 2)

    def test_resume(self):
        optimizer = _optimizer()
        schedule = CosineRestartWarmupLR(optimizer, period=10, warmup_iter=3)
        for _ in range(7):
            optimizer.step()
            schedule.step()
        other = _optimizer()
        resumed = CosineRestartWarmupLR(other, period=10, warmup_iter=3)
        resumed.load_state_dict(schedule.state_dict())
        other.load_state_dict(optimizer.state_dict())
        for one, its in ((optimizer, schedule), (other, resumed)):
            one.step()
            its.step()
        assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]

    @pytest.mark.parametrize("warmup", [-1, 10, 11])
    def test_exception(self, warmup):
        with pytest.raises(ValueError, match="warmup_iter"):
            CosineRestartWarmupLR(_optimizer(), period=10, warmup_iter=warmup)
