import json
import random
from collections import Counter
from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.models.base_model import BaseModel
from torch import nn

from gramgan_plugin.checkpoints.save import plain
from gramgan_plugin.errors import OptionError, TrainingStopped, UserError
from gramgan_plugin.models.basicsr_fixes import HostFixes
from gramgan_plugin.models.schedules import scheduler_class


class _Model(HostFixes, BaseModel):
    """A model that is all host."""


@pytest.fixture
def model(tmp_path) -> Any:
    opt = {"num_gpu": 0, "is_train": True, "dist": False, "train": {}, "path": {}}
    opt["path"] = {"models": str(tmp_path / "models"), "training_states": str(tmp_path / "training_states")}
    return _Model(opt)


def _net(seed: int, features: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return RRDBNet(3, 3, num_feat=features, num_block=1, num_grow_ch=2)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class TestLoadNetwork:
    @pytest.mark.parametrize("param_key", ["params", "params_ema", None])
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda s: s,
            lambda s: {"params": s},
            lambda s: {"params_ema": s},
            lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
        ],
    )
    def test_every_wrapping_with_every_key(self, model, tmp_path, wrap, param_key):
        torch.save(wrap(_net(0).state_dict()), tmp_path / "net.pth")
        net = _net(1)
        model.load_network(net, str(tmp_path / "net.pth"), strict=True, param_key=param_key)
        assert _same(net, _net(0))

    @pytest.mark.parametrize(("key", "seed"), [("params", 0), ("params_ema", 2)])
    def test_the_key_asked_for_is_preferred(self, model, tmp_path, key, seed):
        torch.save({"params": _net(0).state_dict(), "params_ema": _net(2).state_dict()}, tmp_path / "net.pth")
        net = _net(1)
        model.load_network(net, str(tmp_path / "net.pth"), param_key=key)
        assert _same(net, _net(seed))

    def test_a_misfit_is_summed_up_in_one_line(self, model, tmp_path):
        torch.save(_net(0, features=8).state_dict() | {"extra.weight": torch.zeros(1)}, tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
            model.load_network(_net(1), str(tmp_path / "net.pth"))
        message = str(caught.value)
        assert "RRDBNet: " in message
        assert "net.pth" in message
        assert "1 only in the file: extra.weight" in message
        assert "of another shape: conv_first.weight (8, 3, 3, 3) for (4, 3, 3, 3)" in message

    def test_not_strict_takes_what_fits(self, model, tmp_path, caplog):
        weights = _net(0).state_dict()
        del weights["conv_last.bias"]
        torch.save(weights, tmp_path / "net.pth")
        net = _net(1)
        with caplog.at_level("WARNING", logger="basicsr"):
            model.load_network(net, str(tmp_path / "net.pth"), strict=False)
        assert torch.equal(net.conv_first.weight, _net(0).conv_first.weight)
        assert torch.equal(net.conv_last.bias, _net(1).conv_last.bias)

    def test_nothing_fits(self, model, tmp_path):
        torch.save({"other.weight": torch.zeros(3)}, tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"0 of "):
            model.load_network(_net(1), str(tmp_path / "net.pth"), strict=False)

    @pytest.mark.parametrize("content", [{"a": 1}, [1, 2], {}])
    def test_no_state_dict(self, model, tmp_path, content):
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"net\.pth: holds"):
            model.load_network(_net(1), str(tmp_path / "net.pth"))

    def test_damaged_missing_and_hostile_files(self, model, tmp_path):
        torch.save(_net(0).state_dict(), tmp_path / "net.pth")
        data = (tmp_path / "net.pth").read_bytes()
        (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
        (tmp_path / "empty.pth").write_bytes(b"")
        (tmp_path / "text.pth").write_bytes(b"not found")
        torch.save({"params": nn.Linear(1, 1)}, tmp_path / "pickled.pth")
        for name in ("cut.pth", "empty.pth", "text.pth", "pickled.pth", "absent.pth"):
            with pytest.raises(UserError, match=f"^[^\n]*{name}[^\n]*$"):
                model.load_network(_net(1), str(tmp_path / name))


class TestSaving:
    def test_a_checkpoint_is_whole(self, model, tmp_path):
        net = _net(0)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        net(torch.rand(1, 3, 8, 8)).sum().backward()
        optimizer.step()
        model.optimizers = [optimizer]
        model.schedulers = [scheduler_class("MultiStepLR")(optimizer, milestones=[2, 4], gamma=0.5)]
        model.save_network([net, net], "net_g", 10, param_key=["params", "params_ema"])
        model.save_training_state(3, 10)
        manifest = json.loads((tmp_path / "training_states/10.json").read_text())
        assert set(manifest["files"]) == {"models/net_g_10.pth", "training_states/10.state"}
        state = torch.load(tmp_path / "training_states/10.state", weights_only=True)
        assert (state["epoch"], state["iter"]) == (3, 10)
        assert not list(tmp_path.rglob("*.tmp*"))

        other = _net(1)
        model.optimizers = [torch.optim.Adam(other.parameters(), lr=1.0)]
        model.schedulers = [scheduler_class("MultiStepLR")(model.optimizers[0], milestones=[2, 4], gamma=0.5)]
        model.resume_training(state)
        before = optimizer.state_dict()["state"][0]["exp_avg"]
        assert torch.equal(model.optimizers[0].state_dict()["state"][0]["exp_avg"], before)
        assert model.schedulers[0].milestones == {2: 1, 4: 1}

    def test_latest_has_no_state(self, model, tmp_path):
        model.save_network(_net(0), "net_g", -1)
        model.save_training_state(-1, -1)
        assert [path.name for path in tmp_path.rglob("*.*")] == ["net_g_latest.pth"]

    def test_a_full_disk_leaves_what_was_there(self, model, tmp_path, monkeypatch):
        model.save_network(_net(0), "net_g", 1)
        before = (tmp_path / "models/net_g_1.pth").read_bytes()

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(UserError, match=r"net_g_1\.pth: no space left on the disk"):
            model.save_network(_net(1), "net_g", 1)
        assert (tmp_path / "models/net_g_1.pth").read_bytes() == before
        assert len(list((tmp_path / "models").iterdir())) == 1

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_nothing_that_is_not_finite_is_written(self, model, tmp_path, value):
        net = _net(0)
        with torch.no_grad():
            net.conv_last.weight[0, 0, 0, 0] = value
        with pytest.raises(TrainingStopped, match=r"net_g_3\.pth: not written, since params_ema\.conv_last\.weight"):
            model.save_network([_net(0), net], "net_g", 3, param_key=["params", "params_ema"])
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        net(torch.rand(1, 3, 8, 8)).sum().backward()
        optimizer.step()
        model.optimizers = [optimizer]
        with pytest.raises(TrainingStopped, match=r"3\.state: not written, since optimizers\.0\.state"):
            model.save_training_state(0, 3)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_best_has_no_state(self, model, tmp_path):
        model.save_network(_net(0), "net_g", "best")
        model.save_training_state(-1, "best")
        assert [path.name for path in tmp_path.rglob("*.*")] == ["net_g_best.pth"]

    def test_facts_of_the_run_and_random_states(self, model, tmp_path):
        model.run_facts = {"data": {"images": 3}, "place": {"epoch": 1, "batch": 2}}
        random.seed(5)
        torch.manual_seed(6)
        model.save_training_state(1, 7)
        state = torch.load(tmp_path / "training_states/7.state", weights_only=True)
        assert state["run"] == {"data": {"images": 3}, "place": {"epoch": 1, "batch": 2}}
        assert json.loads((tmp_path / "training_states/7.json").read_text())["run"] == state["run"]
        expected = [random.random(), torch.rand(()).item()]
        model.resume_training(state)
        assert [random.random(), torch.rand(()).item()] == expected

    @pytest.mark.parametrize(("saved", "built"), [(False, True), (True, False)])
    def test_an_optimizer_keeps_the_way_it_was_built(self, model, tmp_path, saved, built):
        """Upstream's checkpoints, and those of another machine, were not saved by a fused optimizer."""

        def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
            optimizer.zero_grad()
            net(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
            optimizer.step()

        first, second = _net(0), _net(1)
        before = torch.optim.Adam(first.parameters(), lr=1e-3, fused=saved)
        step(first, before, 1)
        second.load_state_dict(first.state_dict())
        model.optimizers = [torch.optim.Adam(second.parameters(), lr=1e-3, fused=built)]
        model.resume_training({"optimizers": [deepcopy(before.state_dict())], "schedulers": []})
        assert model.optimizers[0].param_groups[0]["fused"] is built
        assert model.optimizers[0].param_groups[0]["lr"] == 1e-3
        step(first, before, 2)
        step(second, model.optimizers[0], 2)
        for one, other in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-8)

    def test_nor_does_another_form_of_loops_come_in(self, model):
        parameters = list(_net(0).parameters())
        saved = torch.optim.Adam(parameters, lr=1e-3, foreach=False).state_dict()
        model.optimizers = [torch.optim.Adam(parameters, lr=1.0, foreach=True)]
        model.resume_training({"optimizers": [saved], "schedulers": []})
        assert model.optimizers[0].param_groups[0]["foreach"] is True

    def test_a_state_with_more_groups_is_refused(self, model):
        first, second = list(_net(0).parameters()), list(_net(1).parameters())
        saved = torch.optim.Adam([{"params": first}, {"params": second}], lr=1e-3).state_dict()
        model.optimizers = [torch.optim.Adam(_net(2).parameters(), lr=1.0)]
        with pytest.raises(ValueError, match="parameter groups"):
            model.resume_training({"optimizers": [saved], "schedulers": []})

    @pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", init_scale=8.0)])
    def test_a_run_of_another_precision(self, model, scaler):
        """A gradient scaler on one side alone is left out."""
        model.scaler = scaler
        saved = None if scaler is not None else torch.amp.GradScaler("cpu").state_dict()
        model.resume_training({"optimizers": [], "schedulers": [], "scaler": saved})
        assert scaler is None or scaler.get_scale() == 8

    def test_only_networks_of_the_same_iteration_belong_to_it(self, model, tmp_path):
        model.save_network(_net(0), "net_g", "best")
        model.save_network(_net(0), "net_g", 4)
        model.save_network(_net(0), "net_g", 5)
        model.save_training_state(0, 5)
        manifest = json.loads((tmp_path / "training_states/5.json").read_text())
        assert set(manifest["files"]) == {"models/net_g_5.pth", "training_states/5.state"}

    def test_plain(self):
        value = {"a": Counter([1, 1]), "b": (1, 2.0, None, "x", True), "t": torch.ones(1)}
        assert plain(value) == {"a": {1: 2}, "b": [1, 2.0, None, "x", True], "t": torch.ones(1)}
        with pytest.raises(TypeError, match=r"cannot stand"):
            plain({"a": object()})


class TestBuilders:
    def test_any_optimizer_of_torch(self, model):
        params = list(_net(0).parameters())
        assert isinstance(model.get_optimizer("AdamW", params, lr=1e-3, weight_decay=0.1), torch.optim.AdamW)
        with pytest.raises(OptionError, match=r"did you mean 'AdamW'"):
            model.get_optimizer("AdmW", params, lr=1e-3)

    @pytest.mark.parametrize(
        ("name", "options", "fused"),
        [
            ("Adam", {}, True),
            ("AdamW", {}, True),
            ("SGD", {"momentum": 0.9}, True),
            ("Adam", {"fused": None, "foreach": None}, True),
            ("Adam", {"foreach": True}, None),
            ("Adam", {"fused": False}, False),
            ("RMSprop", {}, None),
        ],
    )
    def test_fused_where_torch_has_it(self, model, name, options, fused):
        optimizer = model.get_optimizer(name, list(_net(0).parameters()), lr=1e-3, **options)
        assert optimizer.defaults.get("fused") is fused

    def test_not_fused_where_torch_has_it_for_other_weights_only(self, model, monkeypatch):
        class Picky(torch.optim.Adam):
            def __init__(self, params: Any, fused: bool | None = None, **options: Any) -> None:
                if fused:
                    raise RuntimeError("`fused=True` requires all the params to be something else")
                super().__init__(params, fused=fused, **options)

        monkeypatch.setattr(torch.optim, "Adam", Picky)
        optimizer = model.get_optimizer("Adam", iter(_net(0).parameters()), lr=1e-3)
        assert optimizer.defaults["fused"] is None
        assert len(optimizer.param_groups[0]["params"]) == len(list(_net(0).parameters()))

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("MultiStepLR", {"milestones": [5], "gamma": 0.5}),
            ("MultiStepRestartLR", {"milestones": [5]}),
            ("CosineAnnealingRestartLR", {"periods": [5, 5], "restart_weights": [1, 1], "eta_min": 1e-7}),
            ("CosineRestartWarmupLR", {"period": 5, "warmup_iter": 1}),
            ("OneCycleLR", {"max_lr": 0.1, "total_steps": 10}),
        ],
    )
    def test_schedulers(self, model, name, options):
        model.opt["train"]["scheduler"] = {"type": name, **options}
        model.optimizers = [torch.optim.Adam(_net(0).parameters(), lr=1e-3)]
        model.setup_schedulers()
        assert len(model.schedulers) == 1
        assert model.opt["train"]["scheduler"]["type"] == name, "the options are not to be changed"
        state = plain(model.schedulers[0].state_dict())
        model.schedulers[0].load_state_dict(state)

    def test_a_schedule_that_does_not_work(self, model):
        model.opt["train"]["scheduler"] = {"type": "CosineRestartWarmupLR", "period": 5, "warmup_iter": 9}
        model.optimizers = [torch.optim.Adam(_net(0).parameters(), lr=1e-3)]
        with pytest.raises(OptionError, match=r"train\.scheduler: .*warmup_iter"):
            model.setup_schedulers()


def test_a_warm_up_then_the_schedule(model):
    """Also where the schedule multiplies the rate before, as MultiStepLR does."""
    optimizer = torch.optim.SGD(_net(0).parameters(), lr=0.8)
    model.optimizers = [optimizer]
    model.schedulers = [scheduler_class("MultiStepLR")(optimizer, milestones=[6], gamma=0.5)]
    rates = []
    for iteration in range(1, 9):
        model.update_learning_rate(iteration, warmup_iter=4)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4])
