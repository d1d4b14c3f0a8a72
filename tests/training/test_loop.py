import json
import signal
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import pytest
import torch

from gramgan_plugin.checkpoints.resume import damage, newest_checkpoint
from gramgan_plugin.checkpoints.retain import Checkpoints
from gramgan_plugin.errors import OptionError, Preempted, UserError
from gramgan_plugin.models.gramgan_model import GramGANModel
from gramgan_plugin.utils import distributed
from tests.training.tiny_runs import log_lines, same_networks, train_run, weights_of


class TestRun:
    def test_what_it_leaves(self, run, workdir):
        files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        for iteration in (2, 4):
            assert f"models/net_g_{iteration}.pth" in files
            assert f"models/net_d_{iteration}.pth" in files
            assert f"training_states/{iteration}.state" in files
            assert f"training_states/{iteration}.json" in files
        assert {"models/net_g_latest.pth", "options.yml", "environment.json", "train.log", "metrics.jsonl"} <= files
        assert not [name for name in files if "tmp" in name or name.endswith(".lock.json")]
        assert damage(run / "training_states/4.state") is None
        picture = cv2.imread(str(run / "visualization/heldout/astronaut/astronaut_4.png"))
        assert picture.shape == (96, 96, 3)

    def test_metrics(self, run):
        lines = log_lines(run / "metrics.jsonl")
        training = [line for line in lines if "l_g_pix" in line]
        assert [line["iter"] for line in training] == [1, 2, 3, 4]
        assert [line["lr"] for line in training[:3]] == pytest.approx([5e-5, 1e-4, 1e-4])
        assert all(line["grad_g_gram"] > 0 for line in training)
        (validation,) = [line for line in lines if "metrics" in line]
        assert validation["dataset"] == "heldout"
        assert validation["iter"] == 4
        assert 0 < validation["metrics"]["psnr"] < 60

    def test_checkpoints_load_back(self, run, tiny_options):
        from basicsr.archs.rrdbnet_arch import RRDBNet

        options = {k: v for k, v in tiny_options["network_g"].items() if k != "type"}
        for key in ("params", "params_ema"):
            RRDBNet(**options).load_state_dict(weights_of(run / "models/net_g_4.pth", key))
        assert (run / "models/net_g_latest.pth").read_bytes() == (run / "models/net_g_4.pth").read_bytes()

    def test_the_same_seed_gives_the_same_run(self, run, tiny_options):
        train_run(tiny_options | {"name": "again"})
        train_run(tiny_options | {"name": "other", "manual_seed": 1})
        first, again, other = (
            weights_of(run.parent / name / "models/net_g_4.pth") for name in ("tiny", "again", "other")
        )
        assert all(torch.equal(first[k], again[k]) for k in first)
        assert any(not torch.equal(first[k], other[k]) for k in first)

    def test_tensorboard(self, tiny_options, workdir):
        tiny_options["logger"]["use_tb_logger"] = True
        train_run(tiny_options)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(workdir / "tb_logger/tiny"))
        events.Reload()
        assert {"losses/l_g_pix", "metrics/heldout/psnr", "grad_g_pix"} <= set(events.Tags()["scalars"])

    def test_last_checkpoint_when_the_end_is_not_a_multiple(self, tiny_options, workdir):
        tiny_options["train"]["total_iter"] = 3
        train_run(tiny_options)
        assert newest_checkpoint(workdir / "experiments/tiny/training_states").name == "3.state"


class TestResume:
    @pytest.mark.parametrize("reached", [4, 2], ids=["end of an epoch", "middle of an epoch"])
    def test_auto_resume_goes_on_exactly(self, run, tiny_options, workdir, reached):
        if reached == 2:
            (run / "training_states/4.json").unlink()
            (run / "training_states/4.state").unlink()
        longer = deepcopy(tiny_options)
        longer["train"]["total_iter"] = 7
        train_run(longer | {"name": "straight"})
        train_run(longer, auto_resume=True)
        for net, key in (("net_g", "params"), ("net_g", "params_ema"), ("net_d", "params")):
            straight = weights_of(workdir / f"experiments/straight/models/{net}_7.pth", key)
            resumed = weights_of(run / f"models/{net}_7.pth", key)
            assert all(torch.equal(straight[k], resumed[k]) for k in straight), (net, key)
        iterations = [line["iter"] for line in log_lines(run / "metrics.jsonl") if "l_g_pix" in line]
        assert iterations == [1, 2, 3, 4, *range(reached + 1, 8)]
        assert len(list(workdir.glob("experiments/*"))) == 2, "nothing is archived"

    def test_a_damaged_newest_checkpoint_is_passed_over(self, run, tiny_options, caplog):
        network = run / "models/net_g_4.pth"
        network.write_bytes(network.read_bytes()[:-100])
        assert "net_g_4.pth is not as it was written" in damage(run / "training_states/4.state")
        assert newest_checkpoint(run / "training_states").name == "2.state"
        (run / "models/net_g_2.pth").unlink()
        assert newest_checkpoint(run / "training_states") is None

    def test_auto_resume_without_a_checkpoint_starts(self, tiny_options, workdir):
        train_run(tiny_options, auto_resume=True)
        assert (workdir / "experiments/tiny/models/net_g_4.pth").exists()

    def test_resume_state_from_another_run(self, run, tiny_options, workdir):
        tiny_options["name"] = "second"
        tiny_options["train"]["total_iter"] = 5
        tiny_options["path"]["resume_state"] = str(run / "training_states/2.state")
        train_run(tiny_options)
        iterations = [line["iter"] for line in log_lines(workdir / "experiments/second/metrics.jsonl") if "lr" in line]
        assert iterations == [3, 4, 5]

    def test_exception(self, run, tiny_options):
        tiny_options["path"]["resume_state"] = str(run / "training_states/3.state")
        with pytest.raises(UserError, match=r"path\.resume_state: .*3\.state: no such file"):
            train_run(tiny_options)
        (run / "models/net_d_4.pth").write_bytes(b"")
        tiny_options["path"]["resume_state"] = str(run / "training_states/4.state")
        with pytest.raises(UserError, match=r"net_d_4.pth is not as it was written"):
            train_run(tiny_options)

    def test_other_optimizers(self, run, tiny_options):
        for block in ("disc_perceptual_opt", "gan_opt", "optim_d"):
            del tiny_options["train"][block]
        del tiny_options["network_d"]
        with pytest.raises(UserError, match=r"does not fit these options' optimizers"):
            train_run(tiny_options, auto_resume=True)


class TestKeeping:
    def test_last_best_and_latest(self, tiny_options, workdir):
        tiny_options["train"]["total_iter"] = 6
        tiny_options["logger"] |= {"keep_last": 2, "keep_best": "psnr"}
        tiny_options["val"]["val_freq"] = 1
        train_run(tiny_options)
        run = workdir / "experiments/tiny"
        states = sorted(path.name for path in (run / "training_states").iterdir())
        assert states == ["4.json", "4.state", "6.json", "6.state"]
        networks = {f"net_{net}_{label}.pth" for net in "gd" for label in (4, 6, "latest", "best")}
        assert {path.name for path in (run / "models").iterdir()} == networks | {"best.json"}
        assert json.loads((run / "latest.json").read_text()) == {"iter": 6, "state": "training_states/6.state"}
        lines = log_lines(run / "metrics.jsonl")
        values = {line["iter"]: line["metrics"]["psnr"] for line in lines if "metrics" in line}
        best = json.loads((run / "models/best.json").read_text())
        assert best["iter"] == max(values, key=values.__getitem__)
        assert best["value"] == values[best["iter"]] == best["sets"]["heldout"]
        if best["iter"] == 6:
            assert (run / "models/net_g_best.pth").read_bytes() == (run / "models/net_g_6.pth").read_bytes()

    def test_a_validation_that_a_kill_has_prevented_is_made_up(self, tiny_options, workdir):
        tiny_options["logger"]["keep_best"] = "psnr"
        tiny_options["val"]["val_freq"] = 2
        train_run(tiny_options)
        run = workdir / "experiments/tiny"
        lines = log_lines(run / "metrics.jsonl")
        cut = [line for line in lines if not ("metrics" in line and line["iter"] == 4)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in cut))
        (run / "models/best.json").unlink()
        for total, validated in ((5, [2, 4, 5]), (5, [2, 4, 5]), (6, [2, 4, 5, 6])):
            tiny_options["train"]["total_iter"] = total
            train_run(tiny_options, auto_resume=True)
            assert [line["iter"] for line in log_lines(run / "metrics.jsonl") if "metrics" in line] == validated
        values = [line["metrics"]["psnr"] for line in log_lines(run / "metrics.jsonl") if "metrics" in line]
        assert values[1] == next(line["metrics"]["psnr"] for line in lines if line["iter"] == 4 and "metrics" in line)
        assert json.loads((run / "models/best.json").read_text())["value"] == max(values[1:])


class TestValidation:
    """Whatever a validation meets, the state before it is saved."""

    @pytest.fixture
    def broken(self, monkeypatch):
        def at(error: Callable[[], BaseException]) -> None:
            test = GramGANModel.test

            def fails(self: GramGANModel) -> None:
                if self.is_train:
                    raise error()
                test(self)

            monkeypatch.setattr(GramGANModel, "test", fails)

        return at

    def test_saved_before_it(self, tiny_options, workdir, broken):
        tiny_options["val"]["val_freq"] = 3
        tiny_options["logger"]["save_checkpoint_freq"] = 100
        broken(lambda: KeyError("a fault of the network"))
        with pytest.raises(KeyError):
            train_run(tiny_options)
        assert newest_checkpoint(workdir / "experiments/tiny/training_states").name == "3.state"

    def test_and_removed_when_there_is_a_later_one(self, tiny_options, workdir):
        tiny_options["val"]["val_freq"] = 1
        train_run(tiny_options)
        states = sorted(path.name for path in (workdir / "experiments/tiny/training_states").iterdir())
        assert states == ["2.json", "2.state", "4.json", "4.state"]

    def test_an_image_that_cannot_be_enlarged_ends_nothing(self, tiny_options, workdir, broken):
        broken(lambda: RuntimeError("a size that it cannot take"))
        train_run(tiny_options)
        log = (workdir / "experiments/tiny/train.log").read_text()
        assert "heldout: astronaut is left out of the mean of psnr" in log
        assert "tiny cannot enlarge it (24x24): a size" in log

    def test_unless_the_options_say_so(self, tiny_options, workdir, broken):
        tiny_options["val"]["on_error"] = "stop"
        broken(lambda: RuntimeError("a size that it cannot take"))
        with pytest.raises(UserError, match=r"^heldout: astronaut: tiny cannot enlarge it \(24x24\)"):
            train_run(tiny_options)
        assert newest_checkpoint(workdir / "experiments/tiny/training_states").name == "4.state"

    def test_a_signal_acts_within_one_image(self, tiny_options, workdir, monkeypatch):
        gt = Path(tiny_options["datasets"]["val"].pop("dataroot_gt"))
        del tiny_options["datasets"]["val"]["dataroot_lq"]
        photos = workdir / "photos"
        photos.mkdir()
        for number in range(5):
            (photos / f"{number}.png").write_bytes((gt / "astronaut.png").read_bytes())
        tiny_options["datasets"]["val"] |= {"dataroot_gt": str(photos), "lq": "bicubic"}
        tiny_options["val"] |= {"val_freq": 2}
        test, calls = GramGANModel.test, []

        def signalled(self: GramGANModel) -> None:
            calls.append(1)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
            test(self)

        with monkeypatch.context() as patch, pytest.raises(Preempted, match="after iteration 2"):  # noqa: PT012
            patch.setattr(GramGANModel, "test", signalled)
            train_run(tiny_options)
        assert len(calls) == 2
        train_run(tiny_options, auto_resume=True)
        lines = [line["iter"] for line in log_lines(workdir / "experiments/tiny/metrics.jsonl") if "metrics" in line]
        assert lines == [2, 4], "what the signal cut short is made up"

    def test_a_kill_between_the_results_and_the_best(self, tiny_options, workdir):
        tiny_options["logger"]["keep_best"] = "psnr"

        def killed(self: Checkpoints, *arguments: object) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            patch.setattr(Checkpoints, "validated", killed)
            train_run(tiny_options)
        best = workdir / "experiments/tiny/models/best.json"
        assert not best.exists()
        train_run(tiny_options, auto_resume=True)
        (value,) = (
            line["metrics"]["psnr"]
            for line in log_lines(workdir / "experiments/tiny/metrics.jsonl")
            if "metrics" in line
        )
        assert json.loads(best.read_text())["value"] == value

    def test_results_of_weights_left_behind_do_not_count(self, tiny_options, workdir):
        tiny_options["val"]["val_freq"] = tiny_options["train"]["total_iter"] = 3
        train_run(tiny_options)
        run = workdir / "experiments/tiny"
        for path in [*run.glob("training_states/3.*"), *run.glob("models/net_?_3.pth")]:
            path.unlink()
        tiny_options["train"]["optim_g"]["lr"] = 1e-2

        def killed(self: GramGANModel) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            patch.setattr(GramGANModel, "test", killed)
            train_run(tiny_options, auto_resume=True)
        train_run(tiny_options, auto_resume=True)
        values = [line["metrics"]["psnr"] for line in log_lines(run / "metrics.jsonl") if "metrics" in line]
        assert len(values) == 2, "it is measured again"

    def test_a_checkpoint_for_a_validation_goes_after_a_resume_too(self, tiny_options, workdir, after):
        tiny_options["val"]["val_freq"] = 3
        tiny_options["train"]["total_iter"] = 6
        tiny_options["logger"]["keep_last"] = 2
        after(3, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Preempted):
            train_run(tiny_options)
        states = workdir / "experiments/tiny/training_states"
        assert (states / "3.json").exists()
        train_run(tiny_options, auto_resume=True)
        assert sorted(path.name for path in states.glob("*.json")) == ["4.json", "6.json"]


class TestSpikes:
    def test_the_norms_are_resumed_exactly(self, tiny_options, workdir):
        tiny_options["train"] |= {"max_grad_ratio": 5, "total_iter": 3}
        train_run(tiny_options)
        states = workdir / "experiments/tiny/training_states"
        norms = torch.load(states / "3.state", weights_only=True)["own"]["grad_norms"]
        logged = [line["grad_norm_g"] for line in log_lines(workdir / "experiments/tiny/metrics.jsonl") if "lr" in line]
        assert norms["g"][-3:].tolist() == pytest.approx(logged)
        tiny_options["train"]["total_iter"] = 4
        train_run(tiny_options, auto_resume=True)
        after = torch.load(states / "4.state", weights_only=True)["own"]["grad_norms"]
        assert torch.equal(after["d"][-4:-1], norms["d"][-3:])


class TestReproducible:
    def test_settings_hold_during_the_run_and_are_logged(self, tiny_options, workdir, after):
        found = []
        after(1, lambda: found.append(torch.are_deterministic_algorithms_enabled()))
        train_run(tiny_options | {"deterministic": True})
        assert found == [True]
        assert not torch.are_deterministic_algorithms_enabled()
        assert "cudnn.benchmark off, deterministic on" in (workdir / "experiments/tiny/train.log").read_text()

    def test_a_drawn_seed_is_that_of_the_first_process(self, tiny_options, workdir, monkeypatch):
        gather = distributed.gather

        def gathered(value: Any) -> list[Any]:
            return gather((value[0], 77) if isinstance(value, tuple) else value)

        monkeypatch.setattr(distributed, "gather", gathered)
        del tiny_options["manual_seed"]
        train_run(tiny_options)
        state = torch.load(workdir / "experiments/tiny/training_states/4.state", weights_only=True)
        assert state["run"]["seed"] == 77

    def test_a_model_that_draws_in_validation(self, tiny_options, workdir, monkeypatch):
        feed = GramGANModel.feed_data

        def noisy(self: GramGANModel, data: Any) -> None:
            feed(self, data)
            self.lq = self.lq + 0.1 * torch.randn_like(self.lq)

        monkeypatch.setattr(GramGANModel, "feed_data", noisy)
        for val_freq in (1, 4):
            tiny_options["val"]["val_freq"] = val_freq
            train_run(tiny_options | {"name": f"every{val_freq}"})
        assert same_networks(workdir / "experiments/every1", workdir / "experiments/every4", 4)


class TestOptions:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda o: o["train"].pop("total_iter"), "train.total_iter: expected a whole number"),
            (lambda o: o["logger"].update(print_freq=0.5), "logger.print_freq: expected a whole number"),
            (lambda o: o["datasets"].pop("train"), "datasets.train: missing"),
            (lambda o: o["datasets"]["train"].update(batch_size_per_gpu=99), "make no batch of 99"),
            (lambda o: o["datasets"]["train"].update(dataroot_gt="nowhere.lmdb"), "datasets.train.dataroot_gt"),
        ],
    )
    def test_exception(self, tiny_options, workdir, change, message):
        change(tiny_options)
        with pytest.raises(OptionError if "dataroot" not in message else UserError, match=message):
            train_run(tiny_options)

    def test_numbers_that_upstream_writes_as_floats(self, tiny_options, workdir):
        tiny_options["val"]["val_freq"] = 4.0
        tiny_options["logger"]["save_checkpoint_freq"] = 4e0
        train_run(tiny_options)
        assert (workdir / "experiments/tiny/models/net_g_4.pth").exists()
