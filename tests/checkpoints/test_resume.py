import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.checkpoints.resume import find_resume_state
from gramgan_plugin.config import resolve_options
from gramgan_plugin.errors import UserError
from gramgan_plugin.training.loop import train
from gramgan_plugin.training.provenance import recorded_seed


def _train(options: dict[str, Any], **kwargs: Any) -> None:
    train(resolve_options(deepcopy(options), is_train=True, **kwargs))


def _epochs(run: Path) -> list[tuple[int, int]]:
    """(iteration, epoch) as logged."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["iter"], line["epoch"]) for line in lines if "lr" in line]


def _warnings(run: Path) -> list[str]:
    """Those of the log, without what every first start of such a small and short run is warned of."""
    found = re.findall(r"WARNING: (.*)", (run / "train.log").read_text())
    return [line for line in found if not line.startswith(("so few training images", "the learning rate falls"))]


@pytest.fixture
def run(tiny_options, workdir) -> Path:
    """3 iterations of a run with 4 in an epoch."""
    tiny_options["train"]["total_iter"] = 3
    del tiny_options["val"]
    _train(tiny_options)
    run = workdir / "experiments/tiny"
    assert _epochs(run) == [(1, 0), (2, 0), (3, 0)]
    tiny_options["train"]["total_iter"] = 5
    return run


class TestChangesOnResume:
    def test_none(self, run, tiny_options):
        _train(tiny_options, auto_resume=True)
        assert _epochs(run)[3:] == [(4, 0), (5, 1)]
        assert _warnings(run) == []
        state = torch.load(run / "training_states/4.state", weights_only=True)
        assert state["run"]["place"] == {"epoch": 1, "batch": 0}

    def test_batch(self, run, tiny_options):
        tiny_options["datasets"]["train"]["batch_size_per_gpu"] = 1
        _train(tiny_options, auto_resume=True)
        assert _epochs(run)[3:] == [(4, 1), (5, 1)]
        (warning,) = _warnings(run)
        assert "1 images a batch over all processes, were 2" in warning
        state = torch.load(run / "training_states/5.state", weights_only=True)
        assert state["run"]["place"] == {"epoch": 1, "batch": 2}

    def test_seed(self, run, tiny_options):
        tiny_options["manual_seed"] = 1
        _train(tiny_options, auto_resume=True)
        assert _epochs(run)[3:] == [(4, 1), (5, 1)]
        assert len(_warnings(run)) == 1
        assert "manual_seed: 1, was 0" in _warnings(run)[0]

    def test_data(self, run, tiny_options):
        tiny_options["datasets"]["train"]["use_rot"] = False
        _train(tiny_options, auto_resume=True)
        assert _epochs(run)[3:] == [(4, 1), (5, 1)]
        (warning,) = _warnings(run)
        assert "other data (use_rot: False, was True)" in warning

    def test_a_seed_that_was_drawn_stays(self, tiny_options, workdir):
        del tiny_options["manual_seed"], tiny_options["val"]
        tiny_options["train"]["total_iter"] = 3
        seeds = []
        for _ in range(3):
            _train(tiny_options, auto_resume=True)
            newest = find_resume_state(resolve_options(tiny_options, is_train=True, auto_resume=True))
            seeds.append(recorded_seed(torch.load(newest, weights_only=True)))
            tiny_options["train"]["total_iter"] += 1
        assert seeds[0] == seeds[1] == seeds[2] is not None
        assert _warnings(workdir / "experiments/tiny") == []


class TestWhichState:
    def test_auto_resume_before_the_first_checkpoint_takes_the_one_named(self, run, tiny_options, workdir):
        tiny_options |= {"name": "second"}
        tiny_options["path"]["resume_state"] = str(run / "training_states/2.state")
        _train(tiny_options, auto_resume=True)
        assert _epochs(workdir / "experiments/second") == [(3, 0), (4, 0), (5, 1)]
        tiny_options["train"]["total_iter"] = 6
        _train(tiny_options, auto_resume=True)
        assert _epochs(workdir / "experiments/second")[3:] == [(6, 1)]

    def test_newer_checkpoints_are_never_overwritten(self, run, tiny_options):
        tiny_options["path"]["resume_state"] = str(run / "training_states/2.state")
        before = {path: path.read_bytes() for path in run.rglob("*_3.*")}
        with pytest.raises(UserError, match=r"2\.state: .*3\.state is newer"):
            _train(tiny_options)
        assert {path: path.read_bytes() for path in run.rglob("*_3.*")} == before

    def test_an_older_state_than_one_that_is_damaged(self, run, tiny_options):
        tiny_options["path"]["resume_state"] = str(run / "training_states/2.state")
        (run / "models/net_d_3.pth").write_bytes(b"")
        _train(tiny_options)
        assert _warnings(run) == []

    def test_a_damaged_one_is_named_in_the_log(self, run, tiny_options):
        (run / "models/net_d_3.pth").write_bytes(b"")
        _train(tiny_options, auto_resume=True)
        (warning,) = _warnings(run)
        assert "3.state is skipped: models/net_d_3.pth" in warning
        assert _epochs(run)[3:] == [(3, 0), (4, 0), (5, 1)]

    def test_a_finished_run(self, run, tiny_options):
        tiny_options["train"]["total_iter"] = 3
        files = {path: path.stat().st_mtime_ns for path in run.rglob("*_3.*")}
        networks = (run / "models/net_g_latest.pth").read_bytes()
        for total in (3, 2):
            tiny_options["train"]["total_iter"] = total
            _train(tiny_options, auto_resume=True)
            text = f"finished: it has come to iteration 3, and train.total_iter is {total}"
            assert text in (run / "train.log").read_text()
        assert len(_epochs(run)) == 3
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*_3.*")} == files, "nothing is saved again"
        assert (run / "models/net_g_latest.pth").read_bytes() == networks

    def test_nothing_to_resume_from_and_an_older_folder(self, tiny_options, workdir, capfd):
        older = workdir / "experiments/tiny"
        older.mkdir(parents=True)
        (older / "notes.txt").write_text("mine")
        tiny_options["train"]["total_iter"] = 1
        del tiny_options["val"]
        _train(tiny_options, auto_resume=True)
        (archive,) = workdir.glob("experiments/tiny_archived_*")
        assert (archive / "notes.txt").read_text() == "mine"
        log = (older / "train.log").read_text()
        for text in (log, capfd.readouterr().err):
            assert "no checkpoint to resume from" in text
            assert f"it is now {archive.relative_to(workdir)}" in text.replace(f"{workdir}/", "")


class TestWithoutAList:
    """Upstream writes no N.json, and it may be lost in copying."""

    def test_a_run_that_upstream_began(self, run, tiny_options):
        for manifest in (run / "training_states").glob("*.json"):
            manifest.unlink()
        state = torch.load(run / "training_states/3.state", weights_only=True)
        of_upstream = {key: state[key] for key in ("epoch", "iter", "optimizers", "schedulers")}
        torch.save(of_upstream, run / "training_states/3.state")
        _train(tiny_options, auto_resume=True)
        (warning,) = _warnings(run)
        assert "3.state has no 3.json" in warning
        assert [iteration for iteration, _ in _epochs(run)] == [1, 2, 3, 4, 5]

    def test_where_upstream_went_on_is_where_it_resumes(self, run, tiny_options):
        (run / "training_states/3.json").unlink()
        before = (run / "models/net_g_3.pth").read_bytes()
        _train(tiny_options, auto_resume=True)
        assert [iteration for iteration, _ in _epochs(run)] == [1, 2, 3, 4, 5]
        assert (run / "models/net_g_3.pth").read_bytes() == before

    def test_a_newer_one_that_lacks_a_network_stops_the_run(self, run, tiny_options):
        (run / "training_states/3.json").unlink()
        (run / "models/net_d_3.pth").unlink()
        with pytest.raises(UserError, match=r"3\.state: .*net_d_3\.pth is missing"):
            _train(tiny_options, auto_resume=True)
        assert (run / "training_states/3.state").exists()
        (run / "training_states/3.state").rename(run / "3.state")
        _train(tiny_options, auto_resume=True)
        assert [iteration for iteration, _ in _epochs(run)] == [1, 2, 3, 3, 4, 5]

    @pytest.mark.parametrize("name", ["training_states/3.state", "models/net_g_3.pth"])
    def test_one_that_cannot_be_read_is_passed_over(self, run, tiny_options, name):
        (run / "training_states/3.json").unlink()
        (run / name).write_bytes((run / name).read_bytes()[:1000])
        _train(tiny_options, auto_resume=True)
        assert "3.state is skipped: " in _warnings(run)[0]
        assert [iteration for iteration, _ in _epochs(run)] == [1, 2, 3, 3, 4, 5]


class TestChangedOptions:
    def test_rate(self, run, tiny_options):
        tiny_options["train"]["optim_g"]["lr"] = 1e-6
        _train(tiny_options, auto_resume=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["lr"] for line in lines if "lr" in line][3:] == pytest.approx([1e-6, 1e-6], rel=1e-2)
        assert any("train.optim_g: lr: 1e-06, was 0.0001" in line for line in _warnings(run))

    def test_a_longer_cycle(self, tiny_options, workdir):
        del tiny_options["val"]
        train = tiny_options["train"]
        train["scheduler"] = {"type": "OneCycleLR", "max_lr": 1e-3, "total_steps": 4}
        train["total_iter"] = 4
        _train(tiny_options)
        train["scheduler"]["total_steps"] = train["total_iter"] = 8
        _train(tiny_options, auto_resume=True)
        assert len(_epochs(workdir / "experiments/tiny")) == 8

    def test_a_network_of_other_widths(self, run, tiny_options):
        tiny_options["path"]["ignore_resume_networks"] = ["network_g"]
        for width in (2, 4):  # other widths, and the same as before
            tiny_options["network_g"]["num_grow_ch"] = width
            tiny_options["train"]["total_iter"] += 1
            _train(tiny_options, auto_resume=True)
            assert "train.optim_g: the moments start anew, since path.ignore_resume_networks" in _warnings(run)[-1]
            newest = max((run / "training_states").glob("*.state"), key=lambda path: int(path.stem))
            steps = torch.load(newest, weights_only=True)["optimizers"][0]["state"][0]["step"]
            assert int(steps) < int(newest.stem)

    def test_an_optimizer_of_another_class(self, run, tiny_options):
        tiny_options["train"]["optim_g"]["type"] = "AdamW"
        _train(tiny_options, auto_resume=True)
        assert "train.optim_g: the moments start anew, since the optimizer is AdamW, was Adam" in _warnings(run)[0]
