import math
from typing import Any

import pytest
import torch
from torch import nn

from gramgan_plugin.steps.update import Update, decides_on_device

FUSED = {"lr": 0.1, "fused": True}


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3))


def _state(net: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    moments = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return [value.detach().clone() for value in (*net.state_dict().values(), *moments)]


def _forward_backward(net: nn.Module, seed: int, factor: float = 1.0) -> torch.Tensor:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    loss = net(x).square().mean() * factor
    loss.backward()
    return loss.detach()


def _like(optimizer: torch.optim.Optimizer, net: nn.Module) -> torch.optim.Optimizer:
    options = {key: value for key, value in optimizer.defaults.items() if key != "decoupled_weight_decay"}
    return type(optimizer)(net.parameters(), **options)


@pytest.fixture(params=["Adam", "AdamW", "Adam, not fused", "SGD, fused", "RMSprop"])
def optimizer_and_net(request) -> Any:
    net = _net()
    build = {
        "Adam": lambda p: torch.optim.Adam(p, **FUSED),
        "AdamW": lambda p: torch.optim.AdamW(p, **FUSED),
        "Adam, not fused": lambda p: torch.optim.Adam(p, lr=0.1),
        "SGD, fused": lambda p: torch.optim.SGD(p, momentum=0.9, **FUSED),
        "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    }
    return build[request.param](net.parameters()), net


class TestUpdate:
    @pytest.mark.parametrize("broken", [1, 3])
    def test_a_step_that_is_not_finite_never_happened(self, optimizer_and_net, broken):
        """Also the very first one, before the optimizer has any state."""
        optimizer, net = optimizer_and_net
        update = Update({"g": optimizer}, {"g": net})
        for iteration in range(1, broken):
            update.begin()
            update.finish({"loss": _forward_backward(net, iteration)}, iteration)
        before = _state(net, optimizer)
        update.begin()
        loss = _forward_backward(net, broken, factor=math.nan)
        assert not torch.equal(net[1].running_mean, before[2]), "the forward pass has moved BatchNorm's statistics"
        update.finish({"loss": loss}, broken)
        after = _state(net, optimizer)
        if broken > 1:
            assert len(after) == len(before)
        for one, other in zip(before, after, strict=False):
            assert torch.equal(one, other)
        # And the run continues as one without that iteration.
        other_net = _net()
        other = _like(optimizer, other_net)
        plain = Update({"g": other}, {"g": other_net})
        for iteration in range(1, broken):
            plain.begin()
            plain.finish({"loss": _forward_backward(other_net, iteration)}, iteration)
        for one, net_, optimizer_ in ((update, net, optimizer), (plain, other_net, other)):
            one.begin()
            one.finish({"loss": _forward_backward(net_, 9)}, 9)
            assert all(torch.isfinite(value).all() for value in _state(net_, optimizer_) if value.is_floating_point())
        assert all(torch.equal(a, b) for a, b in zip(_state(net, optimizer), _state(other_net, other), strict=True))

    def test_a_finite_step_is_the_optimizers_own(self, optimizer_and_net):
        optimizer, net = optimizer_and_net
        twin = _net()
        alone = _like(optimizer, twin)
        update = Update({"g": optimizer}, {"g": net})
        for iteration in (1, 2, 3):
            update.begin()
            norms = update.finish({"loss": _forward_backward(net, iteration)}, iteration)
            alone.zero_grad()
            _forward_backward(twin, iteration)
            expected = math.sqrt(sum(p.grad.double().square().sum().item() for p in twin.parameters()))
            assert norms["grad_norm_g"].item() == pytest.approx(expected, rel=1e-5)
            alone.step()
        assert all(torch.equal(a, b) for a, b in zip(_state(net, optimizer), _state(twin, alone), strict=True))
        assert update.report().count == 0

    def test_all_or_none(self):
        """What is wrong with D's half keeps G where it is, too."""
        nets = {"g": _net(), "d": _net()}
        optimizers = {name: torch.optim.Adam(net.parameters(), **FUSED) for name, net in nets.items()}
        update = Update(optimizers, nets)
        before = {name: _state(net, optimizers[name]) for name, net in nets.items()}
        update.begin()
        good = _forward_backward(nets["g"], 1)
        bad = _forward_backward(nets["d"], 2, factor=math.inf)
        update.finish({"l_g": good, "l_d": bad}, 1)
        for name, net in nets.items():
            assert all(torch.equal(a, b) for a, b in zip(before[name], _state(net, optimizers[name]), strict=False))

    @pytest.mark.parametrize("where", ["value", "gradient"])
    def test_either_alone_is_enough(self, where):
        net = _net()
        update = Update({"g": torch.optim.Adam(net.parameters(), **FUSED)}, {"g": net})
        before = net[0].weight.detach().clone()
        update.begin()
        loss = _forward_backward(net, 1)
        if where == "gradient":
            net[2].weight.grad[0, 0, 0, 0] = math.nan
        update.finish({"loss": loss * (math.nan if where == "value" else 1)}, 1)
        assert torch.equal(net[0].weight, before)
        assert update.report().first == ("loss" if where == "value" else "grad_norm_g")

    def test_report_is_exact(self):
        net = _net()
        update = Update({"g": torch.optim.Adam(net.parameters(), **FUSED)}, {"g": net})
        bad = {3: "b", 4: "a", 7: "c", 8: "b", 9: "a", 12: "c"}
        reports = {}
        for iteration in range(1, 15):
            update.begin()
            _forward_backward(net, iteration)
            values = {name: torch.tensor(math.nan if bad.get(iteration) == name else 1.0) for name in "abc"}
            update.finish(values, iteration)
            if iteration in (2, 5, 8, 10, 14):
                reports[iteration] = update.report()
        assert [(i, r.count, r.longest, r.iteration, r.first) for i, r in reports.items()] == [
            (2, 0, 0, 0, ""),
            (5, 2, 2, 3, "b"),
            (8, 2, 2, 7, "c"),
            (10, 1, 3, 9, "a"),  # the run of 7 to 9 began before the last report
            (14, 1, 1, 12, "c"),
        ]

    @pytest.mark.parametrize("rarely", ["g", "d"])
    def test_a_row_of_one_network(self, rarely):
        """A network that has a turn now and then, and fails in each: the other's good steps do not hide it."""
        nets = {"g": _net(), "d": _net()}
        update = Update({name: torch.optim.Adam(net.parameters(), **FUSED) for name, net in nets.items()}, nets)
        for iteration in range(1, 13):
            update.begin()
            turns = "gd" if iteration % 3 == 0 else "d" if rarely == "g" else "g"
            values = {name: _forward_backward(nets[name], iteration) for name in turns}
            if rarely in turns:
                values[rarely] = values[rarely] * math.nan
            update.finish(values, iteration)
        report = update.report()
        assert (report.count, report.longest, report.iteration, report.first) == (4, 4, 3, rarely)
        update.begin()
        update.finish({name: _forward_backward(net, 13) for name, net in nets.items()}, 13)
        assert update.report().longest == 0

    def test_the_first_of_several_counts(self):
        net = _net()
        update = Update({"g": torch.optim.Adam(net.parameters(), **FUSED)}, {"g": net})
        update.begin()
        _forward_backward(net, 1, factor=math.nan)
        nan = torch.tensor(math.nan)
        update.finish({"SR": torch.tensor(1.0), "l_g_pix": nan, "l_g_gram": nan}, 1)
        assert update.report().first == "l_g_pix"

    def test_clip(self):
        nets = {"g": _net(), "d": _net()}
        optimizers = {name: torch.optim.SGD(net.parameters(), lr=1.0) for name, net in nets.items()}
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in nets.items()}
        update = Update(optimizers, nets, clip={"g": 0.01})
        update.begin()
        loss = _forward_backward(nets["g"], 1) + _forward_backward(nets["d"], 1)
        norms = update.finish({"loss": loss}, 1)
        moved = {
            name: math.sqrt(
                sum((p - b).square().sum().item() for p, b in zip(net.parameters(), before[name], strict=True))
            )
            for name, net in nets.items()
        }
        assert norms["grad_norm_g"] > 0.1, "measured before clipping"
        assert moved["g"] == pytest.approx(0.01, rel=1e-3)
        assert moved["d"] == pytest.approx(norms["grad_norm_d"].item(), rel=1e-4)

    def test_a_network_that_sat_out(self):
        nets = {"g": _net(), "d": _net()}
        optimizers = {name: torch.optim.Adam(net.parameters(), **FUSED) for name, net in nets.items()}
        update = Update(optimizers, nets)
        update.begin()
        norms = update.finish({"loss": _forward_backward(nets["d"], 1)}, 1)
        assert list(norms) == ["grad_norm_d"]
        assert not optimizers["g"].state
        update.begin()
        update.finish({"loss": _forward_backward(nets["g"], 2) + _forward_backward(nets["d"], 2)}, 2)
        before = _state(nets["g"], optimizers["g"])
        update.begin()
        update.finish({"loss": _forward_backward(nets["d"], 3)}, 3)
        assert all(torch.equal(a, b) for a, b in zip(before, _state(nets["g"], optimizers["g"]), strict=True))

    def test_iterations_that_compute_different_things(self):
        net = _net()
        update = Update({"d": torch.optim.Adam(net.parameters(), **FUSED)}, {"d": net})
        one, nan = torch.tensor(1.0), torch.tensor(math.nan)
        for iteration, values, first in ((1, {"l_g": one, "l_d": one}, ""), (2, {"l_d": nan}, "l_d")):
            update.begin()
            _forward_backward(net, iteration)
            update.finish(values, iteration)
            assert update.report().first == first

    @pytest.mark.parametrize("elsewhere", [0, 1])
    def test_what_another_process_found_counts(self, elsewhere, monkeypatch):
        def all_reduce(bad: torch.Tensor, op: Any) -> None:
            assert op == torch.distributed.ReduceOp.MAX
            bad[0] = max(int(bad[0]), elsewhere)

        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
        net = _net()
        update = Update({"g": torch.optim.Adam(net.parameters(), **FUSED)}, {"g": net})
        before = net[0].weight.detach().clone()
        update.begin()
        update.finish({"loss": _forward_backward(net, 1)}, 1)
        assert torch.equal(net[0].weight, before) == bool(elsewhere)
        assert update.report().count == elsewhere

    def test_scaler(self):
        """Scaled gradients give the step of unscaled ones; too large a scale skips the step and is lowered."""
        net, twin = _net(), _net()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        update = Update({"g": torch.optim.SGD(net.parameters(), lr=0.1)}, {"g": net}, scaler=scaler)
        one = torch.ones(())
        update.begin()
        loss = _forward_backward(net, 1, factor=float(scaler.scale(one)))
        norms = update.finish({"loss": loss / 2.0**10}, 1)
        alone = torch.optim.SGD(twin.parameters(), lr=0.1)
        _forward_backward(twin, 1)
        alone.step()
        for a, b in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
        assert norms["grad_norm_g"] < 100, "measured without the scale"
        update.begin()
        _forward_backward(net, 2)
        net[0].weight.grad[:] = math.inf
        update.finish({"loss": one}, 2)
        assert scaler.get_scale() == 2.0**9
        torch.testing.assert_close(net[0].weight, twin[0].weight, rtol=1e-5, atol=1e-7)

    def test_nothing_is_read_from_the_device(self, monkeypatch):
        """A fused Adam leaves the decision where it was made: no value comes to the host before the report."""
        net = _net()
        update = Update({"g": torch.optim.Adam(net.parameters(), **FUSED)}, {"g": net}, clip={"g": 1.0})

        def read(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("a value was read from the device")

        update.begin()
        update.finish({"loss": _forward_backward(net, 1)}, 1)  # what is made once is made
        update.begin()
        loss = _forward_backward(net, 2, factor=math.nan)
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, read)
        update.finish({"loss": loss}, 2)


class TestPeak:
    @pytest.mark.parametrize(
        ("values", "peak"),
        [
            ({"SR": 9.0, "l_g_pix": 1.0, "l_g_gan": 5.0, "l_d_real": 7.0}, 1.0),
            # The level of an adversarial term says nothing.
            ({"SR": 9.0, "l_g_dp": 0.5, "l_g_gram": 0.25, "l_g_gan": 5.0, "l_d_real": 7.0}, 0.75),
            ({"SR": 9.0, "l_g_gan": 5.0}, None),
            ({"l_d_real": 7.0, "l_d_fake": 7.0}, None),
        ],
    )
    def test_it_is_the_content_loss_or_the_sum_of_gs_terms(self, values, peak):
        net = _net()
        update = Update({"g": torch.optim.SGD(net.parameters(), lr=0.1)}, {"g": net})
        update.begin()
        update.finish({key: torch.tensor(value) for key, value in values.items()}, 6)
        assert update.peak.take() == ({} if peak is None else {"loss_peak": peak, "loss_peak_iter": 6.0})


class TestDecidesOnDevice:
    def test_which(self):
        parameters = list(_net().parameters())
        assert decides_on_device(torch.optim.Adam(parameters, **FUSED))
        assert decides_on_device(torch.optim.AdamW(parameters, **FUSED))
        assert not decides_on_device(torch.optim.Adam(parameters))
        assert not decides_on_device(torch.optim.SGD(parameters, momentum=0.9, **FUSED))
        groups = [{"params": parameters[:1], "fused": True}, {"params": parameters[1:], "fused": False}]
        assert not decides_on_device(torch.optim.Adam(groups))


class TestScale:
    def test_feature(self):
        net = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for scaler, scale in ((None, 1), (torch.amp.GradScaler("cpu", init_scale=65536.0), 65536)):
            assert float(Update({"g": optimizer}, {"g": net}, scaler=scaler).scale(4)) == scale / 4
