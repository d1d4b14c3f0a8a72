import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.config import check_options, resolve_options
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models import measured_speed
from gramgan_plugin.models.build import build_model
from gramgan_plugin.models.measured_speed import choose_speed, fastest, recorded_speed, time_variants
from gramgan_plugin.training.loop import train

CPU = torch.device("cpu")
ALL = [("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)]
AUTO = {"precision": "auto", "channels_last": "auto"}


@pytest.fixture
def opt(tiny_options):
    tiny_options["train"] |= AUTO
    return resolve_options(tiny_options, is_train=True) | {"rank": 0, "world_size": 1}


@pytest.fixture
def figures(monkeypatch):
    """What timing finds, in the order of ``ALL``; calls are counted."""
    calls = []

    def find(*seconds: float) -> list[int]:
        def timed(opt, device, variants):
            calls.append(len(variants))
            return {variant: value for variant, value in zip(ALL, seconds, strict=True) if variant in variants}

        monkeypatch.setattr(measured_speed, "time_variants", timed)
        monkeypatch.setattr(measured_speed, "bf16_instructions", lambda: ["AVX-512"])
        return calls

    return find


class TestChoice:
    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [
            ((1.0, 0.8, 1.4, 1.1), ("fp32", True)),  # AVX-512's bf16, without AMX
            ((1.0, 0.8, 0.4, 0.25), ("bf16", True)),  # AMX
            ((0.8, 1.0, 0.78, 0.79), ("fp32", False)),  # lower precision for next to nothing
            ((1.0, 1.0, 0.5, 0.6), ("bf16", False)),
        ],
    )
    def test_what_is_fastest_not_what_the_flags_say(self, opt, figures, caplog, seconds, expected):
        caplog.set_level("INFO", "basicsr")
        figures(*seconds)
        speed = choose_speed(opt, CPU)
        assert (speed.precision, speed.channels_last) == expected
        assert speed.seconds == dict(zip(ALL, seconds, strict=True))[expected]
        assert "train.precision and train.channels_last: auto takes " in caplog.text
        assert all(f"{value:.3f} s" in caplog.text for value in seconds)

    def test_only_what_is_left_open_is_timed(self, opt, figures):
        calls = figures(1.0, 0.5, 0.4, 0.3)
        opt["train"]["channels_last"] = False
        assert choose_speed(opt, CPU).facts() == {"precision": "bf16", "channels_last": False, "device": "cpu"}
        opt["train"] |= {"precision": "fp32", "channels_last": "auto"}
        assert choose_speed(opt, CPU).facts() == {"precision": "fp32", "channels_last": True, "device": "cpu"}
        assert calls == [2, 2]
        opt["train"] |= {"precision": "bf16", "channels_last": True}
        assert choose_speed(opt, CPU).facts() == {"precision": "bf16", "channels_last": True, "device": "cpu"}
        assert calls == [2, 2]

    def test_a_cpu_without_bf16(self, opt, figures):
        calls = figures(1.0, 0.5, 0.1, 0.1)
        measured_speed.bf16_instructions = lambda: []
        assert choose_speed(opt, CPU).precision == "fp32"
        assert calls == [2]

    def test_what_cannot_be_timed(self, opt, monkeypatch, caplog):
        def fails(*arguments):
            raise RuntimeError("no such thing\nmore")

        monkeypatch.setattr(measured_speed, "time_variants", fails)
        assert choose_speed(opt, CPU).facts() == {"precision": "fp32", "channels_last": False, "device": "cpu"}
        assert "auto could not be timed (no such thing)" in caplog.text

    def test_ties_go_to_float32(self):
        assert fastest({("fp32", False): 1.0, ("bf16", False): 1.0}) == ("fp32", False)


class TestTiming:
    def test_on_the_runs_networks_without_a_trace(self, opt):
        before = torch.get_rng_state()
        seconds = time_variants(opt, CPU, ALL)
        assert list(seconds) == ALL
        assert all(value > 0 for value in seconds.values())
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("slow", "largest"),
        [
            (1e-6, (2, 16)),  # s a value: all of the batch of 2, LQ 16
            (3e-4, (1, 16)),  # one image takes 0.23 s
            (1e-2, (1, 16)),  # 7.7 s, and smaller than 16 none is taken
        ],
    )
    def test_large_networks_are_timed_on_a_part(self, opt, monkeypatch, slow, largest):
        """By a clock that advances with the values of a pass."""
        sizes, now = [], [0.0]
        once = measured_speed._Pass._time

        def counted(self, precision, device, clock):
            sizes.append(tuple(self.images.shape[i] for i in (0, -1)))
            start = clock()
            once(self, precision, device, lambda: 0.0)
            now[0] += self.images.numel() * slow
            return clock() - start

        monkeypatch.setattr(measured_speed._Pass, "_time", counted)
        opt = {**opt, "network_d": None}
        seconds = time_variants(opt, CPU, ALL[:2], clock=lambda: now[0])
        assert sizes[0] == (1, 16), "it begins with one image"
        assert sizes[-1] == largest
        # Scaled up to the whole batch, it is as if all had been run.
        assert seconds == {variant: pytest.approx(2 * 3 * 16 * 16 * slow) for variant in ALL[:2]}
        # Two to prepare, then for each variant one to prepare and one a round, as long as there is time.
        assert len(sizes) == 2 + 2 * 2 + 2 * 2 * (slow < 1e-2)

    def test_smaller_images(self, opt, monkeypatch):
        sizes, now = [], [0.0]
        once = measured_speed._Pass._time

        def counted(self, precision, device, clock):
            sizes.append(self.images.shape[-1])
            once(self, precision, device, lambda: 0.0)
            now[0] += self.images.shape[-1] ** 2 * 1e-3
            return self.images.shape[-1] ** 2 * 1e-3

        monkeypatch.setattr(measured_speed._Pass, "_time", counted)
        opt["datasets"]["train"]["gt_size"] = 256
        time_variants({**opt, "network_d": None}, CPU, ALL[:2], clock=lambda: now[0])
        assert sizes[:4] == [64, 64, 32, 16]
        assert set(sizes[4:]) == {16}


class TestModel:
    def test_the_run_computes_as_chosen(self, opt, figures):
        figures(1.0, 0.5, 0.9, 0.9)
        model = build_model(opt)
        assert (model.speed.precision, model.speed.channels_last) == ("fp32", True)
        assert model.net_g.conv_first.weight.is_contiguous(memory_format=torch.channels_last)

    def test_auto_is_the_run_that_names_the_choice(self, tiny_options, workdir, figures):
        figures(1.0, 0.5, 0.9, 0.9)
        del tiny_options["val"]
        weights = []
        for name, changes in (("auto", AUTO), ("named", {"precision": "fp32", "channels_last": True})):
            options = {**tiny_options, "name": name, "train": tiny_options["train"] | changes}
            train(resolve_options(options, is_train=True))
            weights.append(torch.load(f"experiments/{name}/models/net_g_4.pth", weights_only=True)["params"])
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    def test_a_resumed_run_keeps_it(self, tiny_options, workdir, figures):
        calls = figures(1.0, 0.5, 0.9, 0.9)
        del tiny_options["val"]
        tiny_options["train"] |= {**AUTO, "total_iter": 2}
        train(resolve_options(tiny_options, is_train=True))
        states = workdir / "experiments/tiny/training_states"
        choice = {"precision": "fp32", "channels_last": True, "device": "cpu"}
        assert torch.load(states / "2.state", weights_only=True)["own"]["speed"] == choice
        figures(0.1, 1.0, 0.01, 0.01)
        tiny_options["train"]["total_iter"] = 4
        train(resolve_options(tiny_options, is_train=True, auto_resume=True))
        assert torch.load(states / "4.state", weights_only=True)["own"]["speed"] == choice
        assert len(calls) == 1

    @pytest.mark.parametrize(
        "facts",
        [{}, {"precision": "fp8", "channels_last": True, "device": "cpu"}, {"precision": None}, {"device": "cuda"}],
    )
    def test_facts_that_do_not_fit(self, facts):
        assert recorded_speed(AUTO, facts, "cpu") == AUTO

    def test_what_the_file_names_holds(self):
        facts = {"precision": "bf16", "channels_last": True, "device": "cpu"}
        assert recorded_speed({"precision": "fp32", "channels_last": "auto"}, facts, "cpu") == {
            "precision": "fp32",
            "channels_last": True,
        }
        assert recorded_speed(AUTO, facts, "cuda") == AUTO

    def test_option(self, tiny_options):
        check_options(tiny_options | {"train": tiny_options["train"] | AUTO})
        with pytest.raises(OptionError, match=r"^train\.channels_last: .*not 'fast'"):
            check_options(tiny_options | {"train": tiny_options["train"] | {"channels_last": "fast"}})
