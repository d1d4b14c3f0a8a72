import json
import re
import resource
import signal
from multiprocessing import active_children
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.checkpoints.resume import newest_checkpoint
from gramgan_plugin.checkpoints.retain import Checkpoints
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.errors import Preempted, TrainingStopped, UserError
from gramgan_plugin.models.gramgan_model import GramGANModel
from tests.training.tiny_runs import built_models, log_lines, same_networks, train_run


class TestSignals:
    def test_the_state_is_saved_and_the_run_goes_on_from_it(self, tiny_options, workdir, after):
        tiny_options["train"]["total_iter"] = 6
        train_run(tiny_options | {"name": "straight"})
        after(3, lambda: signal.raise_signal(signal.SIGUSR1))
        with pytest.raises(Preempted) as caught:
            train_run(tiny_options)
        assert re.match("stopped by SIGUSR1 after iteration 3, .* saved; .*--auto_resume", str(caught.value))
        assert caught.value.exit_code == 75
        run = workdir / "experiments/tiny"
        assert newest_checkpoint(run / "training_states").name == "3.state"
        train_run(tiny_options, auto_resume=True)
        assert same_networks(run, workdir / "experiments/straight", 6)

    @pytest.mark.parametrize(("count", "saved"), [(1, [1]), (2, [2]), (4, [2, 4])])
    def test_saved_once(self, tiny_options, workdir, after, monkeypatch, count, saved):
        tiny_options["train"]["total_iter"] = 6
        calls = []
        monkeypatch.setattr(Checkpoints, "save", lambda self, epoch, iteration, **_: calls.append(iteration))
        after(count, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Preempted, match=f"after iteration {count}, "):
            train_run(tiny_options)
        assert calls == saved

    def test_the_processes_that_load_data_end(self, tiny_options, workdir, after):
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 2
        counts = []
        after(2, lambda: (counts.append(len(active_children())), signal.raise_signal(signal.SIGTERM)))
        with pytest.raises(Preempted) as caught:
            train_run(tiny_options)
        assert counts == [2]
        assert not active_children(), caught  # whose traceback would keep them

    def test_before_the_first_iteration(self, tiny_options, workdir, monkeypatch):
        init = GramGANModel.init_training_settings

        def interrupted(self: GramGANModel) -> None:
            signal.raise_signal(signal.SIGINT)
            init(self)

        with monkeypatch.context() as patch, pytest.raises(Preempted, match="SIGINT at iteration 0; run"):  # noqa: PT012
            patch.setattr(GramGANModel, "init_training_settings", interrupted)
            train_run(tiny_options)
        assert not (workdir / "experiments/tiny/training_states").exists()
        train_run(tiny_options, auto_resume=True)

    def test_a_run_from_elsewhere_saves_before_its_first_iteration(self, run, tiny_options, workdir, monkeypatch):
        tiny_options["name"] = "second"
        tiny_options["train"]["total_iter"] = 6
        tiny_options["path"]["resume_state"] = str(run / "training_states/4.state")
        monkeypatch.setattr(
            TrainingData, "batches", lambda *place: ((1, 0, {}) for _ in [signal.raise_signal(signal.SIGTERM)])
        )
        with pytest.raises(Preempted, match="after iteration 4"):
            train_run(tiny_options)
        assert newest_checkpoint(workdir / "experiments/second/training_states").name == "4.state"

    def test_in_the_last_iteration_the_run_ends_but_is_validated_later(self, tiny_options, workdir, after):
        tiny_options["val"]["val_freq"] = 100
        after(4, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Preempted, match="after iteration 4"):
            train_run(tiny_options)
        run = workdir / "experiments/tiny"
        assert (run / "models/net_g_latest.pth").exists()
        assert not [line for line in log_lines(run / "metrics.jsonl") if "metrics" in line]
        train_run(tiny_options, auto_resume=True)
        assert [line["iter"] for line in log_lines(run / "metrics.jsonl") if "metrics" in line] == [4]


class TestStops:
    """A run that ends itself."""

    def test_data(self, tiny_options, workdir, monkeypatch):
        batches = TrainingData.batches

        def broken(self: TrainingData, *place: int) -> Any:
            for number, batch in enumerate(batches(self, *place)):
                if number == 3:
                    raise TrainingStopped("too many unreadable images")
                yield batch

        monkeypatch.setattr(TrainingData, "batches", broken)
        with pytest.raises(TrainingStopped, match="too many unreadable"):
            train_run(tiny_options)
        run = workdir / "experiments/tiny"
        assert newest_checkpoint(run / "training_states").name == "3.state"
        state = torch.load(run / "training_states/3.state", weights_only=True)
        assert state["run"]["place"] == {"epoch": 0, "batch": 3}

    def test_losses(self, tiny_options, workdir, monkeypatch):
        log = GramGANModel.get_current_log

        def give_up(self: GramGANModel) -> dict[str, float]:
            if log(self)["l_g_pix"] and len(calls) == 2:
                raise TrainingStopped("no step for too long")
            calls.append(1)
            return {}

        calls: list[int] = []
        monkeypatch.setattr(GramGANModel, "get_current_log", give_up)
        with pytest.raises(TrainingStopped, match="no step"):
            train_run(tiny_options)
        assert newest_checkpoint(workdir / "experiments/tiny/training_states").name == "3.state"

    def test_weights_that_are_no_numbers_are_never_saved(self, tiny_options, workdir, after, monkeypatch):
        models = built_models(monkeypatch)
        after(4, lambda: next(models[-1].net_d.parameters()).data.fill_(torch.nan))
        with pytest.raises(TrainingStopped, match="not finite"):
            train_run(tiny_options)
        run = workdir / "experiments/tiny"
        assert newest_checkpoint(run / "training_states").name == "2.state"
        assert not list(run.glob("training_states/4.*"))
        assert json.loads((run / "latest.json").read_text())["iter"] == 2
        assert (run / "train.log").read_text().count("Saving the checkpoint of iteration 4") == 1

    def test_nor_when_the_run_stops_for_another_reason(self, tiny_options, workdir, after, monkeypatch):
        models = built_models(monkeypatch)

        def spoil() -> None:
            models[-1].net_g.conv_first.weight.data.fill_(torch.inf)
            signal.raise_signal(signal.SIGTERM)

        after(3, spoil)
        with pytest.raises(Preempted):
            train_run(tiny_options)
        run = workdir / "experiments/tiny"
        assert newest_checkpoint(run / "training_states").name == "2.state"
        assert "WARNING: The state of iteration 3 cannot be saved" in (run / "train.log").read_text()


class TestFullDisk:
    def test_the_last_good_checkpoint_stays(self, tiny_options, workdir, after):
        tiny_options["train"]["total_iter"] = 6
        train_run(tiny_options | {"name": "straight"})
        # Logs still fit below it, checkpoints do not.
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        after(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1])))
        try:
            with pytest.raises(UserError, match=r"net_g_4.pth: .*(larger than|want of space)") as caught:
                train_run(tiny_options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.exit_code == 2
        run = workdir / "experiments/tiny"
        assert newest_checkpoint(run / "training_states").name == "2.state"
        assert json.loads((run / "latest.json").read_text())["state"] == "training_states/2.state"
        assert not [path for path in run.rglob("*") if "tmp" in path.name]
        train_run(tiny_options, auto_resume=True)
        assert same_networks(run, workdir / "experiments/straight", 6)
