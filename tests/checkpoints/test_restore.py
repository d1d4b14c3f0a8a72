"""Resuming under changed options: what the option file says holds, what the state alone knows is carried."""

import math
from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from basicsr.models.base_model import BaseModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gramgan_plugin.errors import OptionError, TrainingStopped
from gramgan_plugin.models.basicsr_fixes import HostFixes
from tests.messages import assert_message

ITERATIONS = 7
ADAM = {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]}
SCHEDULES: dict[str, dict[str, Any]] = {
    "ours": {"type": "CosineRestartWarmupLR", "period": 20, "warmup_iter": 3},
    "basicsr": {"type": "MultiStepLR", "milestones": [4, 9], "gamma": 0.5},
    "restart": {"type": "CosineAnnealingRestartLR", "periods": [30], "restart_weights": [1], "eta_min": 1e-7},
    "chained": {"type": "CosineAnnealingLR", "T_max": 30},
    "cycle": {"type": "OneCycleLR", "max_lr": 1e-2, "total_steps": 30},
    "warm": {"type": "CosineAnnealingWarmRestarts", "T_0": 5},
    "cyclic": {
        "type": "CyclicLR",
        "base_lr": 1e-5,
        "max_lr": 1e-3,
        "step_size_up": 2,
        "mode": "exp_range",
        "gamma": 0.9,
    },
    "linear": {"type": "LinearLR", "start_factor": 0.1, "total_iters": 9},
}


class Model(HostFixes, BaseModel):
    """A small network with one optimizer and one schedule."""

    def __init__(self, optimizer: dict[str, Any], schedule: dict[str, Any], warmup: int = -1, width: int = 3) -> None:
        super().__init__({"num_gpu": 0, "is_train": True, "dist": False, "train": {"scheduler": schedule}, "path": {}})
        torch.manual_seed(0)
        self.net_g = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 1, 1))
        options = dict(optimizer)
        self.optimizer_g = self.get_optimizer(options.pop("type"), self.net_g.parameters(), **options)
        self.optimizers.append(self.optimizer_g)
        self.setup_schedulers()
        self.warmup = warmup

    def train(self, first: int, last: int) -> list[float]:
        """The rates of the iterations from first to last, in which the network is trained."""
        rates = []
        for iteration in range(first, last + 1):
            self.update_learning_rate(iteration, warmup_iter=self.warmup)
            image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(iteration))
            self.optimizer_g.zero_grad()
            self.net_g(image).square().mean().backward()
            self.optimizer_g.step()
            rates.append(self.optimizer_g.param_groups[0]["lr"])
        return rates

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds, in the types that a file of tensors gives."""
        from gramgan_plugin.checkpoints.save import plain

        return {
            "epoch": 0,
            "iter": ITERATIONS,
            "optimizers": [plain(deepcopy(self.optimizer_g.state_dict()))],
            "schedulers": [plain(deepcopy(self.schedulers[0].state_dict()))],
            "classes": {
                "optimizers": [type(self.optimizer_g).__name__],
                "schedulers": [type(self.schedulers[0]).__name__],
            },
        }

    def go_on(self, other: "Model") -> list[float]:
        """Train from where ``other`` is."""
        self.net_g.load_state_dict(other.net_g.state_dict())
        self.resume_training(other.content())
        return self.train(ITERATIONS + 1, ITERATIONS + 5)


def _begun(optimizer: dict[str, Any], schedule: dict[str, Any], **options: Any) -> Model:
    model = Model(optimizer, schedule, **options)
    model.train(1, ITERATIONS)
    return model


@pytest.fixture
def warnings(caplog) -> Any:
    caplog.set_level("WARNING", "basicsr")
    return lambda: [record.message for record in caplog.records if record.name == "basicsr"]


class TestUnchanged:
    @pytest.mark.parametrize("warmup", [-1, 10])
    @pytest.mark.parametrize("recorded", [True, False])
    @pytest.mark.parametrize("name", SCHEDULES)
    def test_bit_for_bit(self, name, recorded, warmup, warnings):
        whole, part = (Model(ADAM, SCHEDULES[name], warmup) for _ in range(2))
        expected = whole.train(1, ITERATIONS + 5)
        part.train(1, ITERATIONS)
        content = part.content()
        if not recorded:  # upstream's states
            del content["classes"]
        resumed = Model(ADAM, SCHEDULES[name], warmup)
        resumed.net_g.load_state_dict(part.net_g.state_dict())
        resumed.resume_training(content)
        assert resumed.train(ITERATIONS + 1, ITERATIONS + 5) == expected[ITERATIONS:]
        for one, other in zip(whole.net_g.parameters(), resumed.net_g.parameters(), strict=True):
            assert torch.equal(one, other)
        assert warnings() == []

    @pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam", "RAdam", "Adafactor", "RMSprop", "Adagrad", "Rprop"])
    def test_other_optimizers(self, name, warnings):
        options = {"type": name, "lr": 1e-3} | ({"momentum": 0.9} if name == "SGD" else {})
        whole = Model(options, SCHEDULES["basicsr"])
        whole.train(1, ITERATIONS + 5)
        resumed = Model(options, SCHEDULES["basicsr"])
        resumed.go_on(_begun(options, SCHEDULES["basicsr"]))
        for one, other in zip(whole.net_g.parameters(), resumed.net_g.parameters(), strict=True):
            assert torch.equal(one, other)
        assert warnings() == []


class TestChanged:
    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("ours", {"period": 50}),
            ("basicsr", {"milestones": [2, 5, 9]}),
            ("basicsr", {"gamma": 0.1}),
            ("chained", {"T_max": 300}),
            ("cycle", {"total_steps": 60}),
            ("cycle", {"max_lr": 1e-4}),
            ("cyclic", {"max_lr": 1e-4}),
            ("restart", {"eta_min": 1e-5}),
            ("basicsr", {"type": "CosineAnnealingLR", "T_max": 40, "milestones": None, "gamma": None}),
            ("chained", {"type": "OneCycleLR", "T_max": None, "max_lr": 1e-2, "total_steps": 20}),
        ],
    )
    def test_the_schedule_is_as_if_it_had_been_so_from_the_start(self, name, change, warnings):
        new = {key: value for key, value in (SCHEDULES[name] | change).items() if value is not None}
        expected = Model(ADAM, new).train(1, ITERATIONS + 5)[ITERATIONS:]
        assert Model(ADAM, new).go_on(_begun(ADAM, SCHEDULES[name])) == expected
        (line,) = warnings()
        assert_message(line, "train.scheduler", "anew to iteration 7")
        assert "train.optim_g" not in line

    @pytest.mark.parametrize("name", ["ours", "basicsr", "chained"])
    def test_rate(self, name, warnings):
        new = ADAM | {"lr": 1e-6}
        expected = Model(new, SCHEDULES[name]).train(1, ITERATIONS + 5)[ITERATIONS:]
        assert Model(new, SCHEDULES[name]).go_on(_begun(ADAM, SCHEDULES[name])) == expected
        assert "train.optim_g: lr: 1e-06, was 0.001" in warnings()

    def test_betas_and_weight_decay(self, warnings):
        new = ADAM | {"betas": [0.5, 0.9], "weight_decay": 0.1}
        begun = _begun(ADAM, SCHEDULES["basicsr"])
        resumed = Model(new, SCHEDULES["basicsr"])
        resumed.go_on(begun)
        group = resumed.optimizer_g.param_groups[0]
        assert (tuple(group["betas"]), group["weight_decay"]) == ((0.5, 0.9), 0.1)
        (line,) = warnings()
        assert_message(line, "train.optim_g", "betas: [0.5, 0.9], was [0.9, 0.99]", "weight_decay: 0.1, was 0")
        # Seven steps came before: the moments are carried.
        assert float(next(iter(resumed.optimizer_g.state.values()))["step"]) == ITERATIONS + 5

    @pytest.mark.parametrize("recorded", [True, False])
    @pytest.mark.parametrize("name", ["AdamW", "SGD", "Adagrad"])
    def test_another_class_starts_fresh(self, name, recorded, warnings):
        begun = _begun(ADAM, SCHEDULES["basicsr"])
        resumed = Model(
            {"type": name, "lr": 1e-3, **({"momentum": 0.9} if name == "SGD" else {})}, SCHEDULES["basicsr"]
        )
        content = begun.content()
        if not recorded:
            del content["classes"]
        resumed.resume_training(content)
        assert "the moments start anew" in warnings()[0]
        # Adagrad has a state before its first step.
        assert all(float(entry["step"]) == 0 for entry in resumed.optimizer_g.state.values())
        resumed.train(ITERATIONS + 1, ITERATIONS + 2)

    def test_what_an_option_adds_to_the_moments(self, warnings):
        resumed = Model(ADAM | {"amsgrad": True}, SCHEDULES["basicsr"])
        resumed.go_on(_begun(ADAM, SCHEDULES["basicsr"]))
        assert_message(warnings()[0], "train.optim_g", "no max_exp_avg_sq")

    def test_a_schedule_that_is_over(self):
        begun = _begun(ADAM, SCHEDULES["basicsr"])
        with pytest.raises(OptionError, match=r"^train\.scheduler: .* before iteration 7"):
            Model(ADAM, {"type": "OneCycleLR", "max_lr": 1e-2, "total_steps": 4}).go_on(begun)
        short = Model(ADAM, {"type": "OneCycleLR", "max_lr": 1e-2, "total_steps": 4})
        with pytest.raises(TrainingStopped, match=r"^train\.scheduler: .* has ended"):
            short.train(1, 6)


class TestHandMade:
    """States that were edited: what is impossible is refused or computed anew, never believed."""

    def test_negative_squares(self):
        content = _begun(ADAM, SCHEDULES["basicsr"]).content()
        content["optimizers"][0]["state"][0]["exp_avg_sq"] -= 1.0
        with pytest.raises(ValueError, match=r"exp_avg_sq of parameter 0 .*impossible"):
            Model(ADAM, SCHEDULES["basicsr"]).resume_training(content)

    @pytest.mark.parametrize("rate", [-5.0, [1, 2]])
    def test_rates(self, rate):
        content = _begun(ADAM, SCHEDULES["basicsr"]).content()
        content["optimizers"][0]["param_groups"][0]["lr"] = rate
        resumed = Model(ADAM, SCHEDULES["basicsr"])
        resumed.resume_training(content)
        expected = Model(ADAM, SCHEDULES["basicsr"]).train(1, ITERATIONS + 3)[ITERATIONS:]
        assert resumed.train(ITERATIONS + 1, ITERATIONS + 3) == expected


class TestWarmUp:
    """Upstream's linear warm-up never reaches the full rate where a schedule multiplies the rate before."""

    @pytest.mark.parametrize("name", ["basicsr", "chained"])
    def test_reaches_the_full_rate(self, name):
        schedule = SCHEDULES[name] | ({"milestones": [6]} if name == "basicsr" else {})
        rates = Model(ADAM, schedule, warmup=4).train(1, 8)
        without = Model(ADAM, schedule).train(1, 8)
        assert rates[:3] == pytest.approx([1e-3 / 4, 1e-3 / 2, 3e-3 / 4])
        assert rates[3:] == without[3:]


class TestOtherNetworks:
    @pytest.mark.parametrize("width", [2, 5])
    def test_the_moments_of_other_shapes_never_reach_the_optimizer(self, width):
        begun = _begun(ADAM, SCHEDULES["basicsr"])
        other = Model(ADAM, SCHEDULES["basicsr"], width=width)
        with pytest.raises(ValueError, match=r"^train\.optim_g: exp_avg of parameter 0 "):
            other.resume_training(begun.content())

    def test_a_network_that_starts_from_elsewhere(self, warnings):
        begun = _begun(ADAM, SCHEDULES["basicsr"])
        other = Model(ADAM, SCHEDULES["basicsr"], width=5)
        other.opt["path"]["ignore_resume_networks"] = ["network_g"]
        other.resume_training(begun.content())
        (line,) = warnings()
        assert_message(line, "train.optim_g", "anew, since path.ignore_resume_networks")
        other.train(ITERATIONS + 1, ITERATIONS + 2)

    @pytest.mark.parametrize(
        "moment",
        [
            torch.zeros(1),
            torch.zeros(3, 3, 3, 3, dtype=torch.int8),
            torch.zeros(3, 3, 3, 3, dtype=torch.complex64),
            torch.zeros(3, 3, 3, 3).to_sparse(),
            torch.zeros(3, 3, 3, 3, device="meta"),
            torch.full((3, 3, 3, 3), math.nan),
            None,
            "text",
        ],
    )
    def test_a_moment_that_no_step_leaves(self, moment):
        content = _begun(ADAM, SCHEDULES["basicsr"]).content()
        content["optimizers"][0]["state"][0]["exp_avg"] = moment
        with pytest.raises(ValueError, match="exp_avg of parameter 0"):
            Model(ADAM, SCHEDULES["basicsr"]).resume_training(content)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in nested lists and mappings something stands."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    return found + [place for key, member in members for place in _places(member, (*path, key))]


@pytest.fixture(scope="module")
def states() -> list[tuple[str, dict[str, Any]]]:
    from gramgan_plugin.checkpoints.rng import get_rng_states

    states = []
    for name in ("basicsr", "cycle"):
        content = _begun(ADAM, SCHEDULES[name]).content()
        content["random"] = get_rng_states(torch.device("cpu"))
        content["scaler"] = {"scale": 8.0, "growth_factor": 2.0}
        states.append((name, content))
    return states


class TestDamaged:
    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def test_any_field_may_be_anything(self, states, data):
        """The state is refused, or the run trains on with finite weights: nothing crashes."""
        name, whole = data.draw(st.sampled_from(states))
        content = deepcopy(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            *way, last = data.draw(st.sampled_from(_places(content)))
            holder = content
            for key in way:
                holder = holder[key]
            junk = [-1, None, "text", 10**400, math.nan, [], {}, [1, 2], True, {"a": 1}, torch.zeros(2), torch.ones(())]
            holder[last] = data.draw(st.sampled_from([*junk, "remove"]))
            if isinstance(holder, dict) and isinstance(holder[last], str) and holder[last] == "remove":
                del holder[last]
        model = Model(ADAM, SCHEDULES[name])
        try:
            model.resume_training(content)
        except (ValueError, OptionError):
            return
        model.train(ITERATIONS + 1, ITERATIONS + 2)
        assert all(bool(torch.isfinite(p).all()) for p in model.net_g.parameters())
