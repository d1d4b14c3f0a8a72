import contextlib
import importlib.util
import json
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gramgan_plugin.errors import OptionError, Preempted
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.training import wandb_log
from gramgan_plugin.training.logs import RunLog
from gramgan_plugin.training.wandb_log import WandbRun, is_installed, project_of, shareable

INSTALLED = (spec := importlib.util.find_spec("wandb")) is not None and spec.origin is not None


class FakeWandb(ModuleType):
    """Records what it is called with."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None, origin="fake")
        self.calls: list[tuple[str, Any]] = []
        self.failing: set[str] = set()

    def _note(self, name: str, what: Any) -> None:
        self.calls.append((name, what))
        if name in self.failing:
            raise RuntimeError(f"no {name} today\nsecond line")

    def init(self, **options: Any) -> "FakeWandb":
        self._note("init", options)
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self._note("define_metric", (name, step_metric))

    def log(self, values: dict[str, float]) -> None:
        self._note("log", values)

    def mark_preempting(self) -> None:
        self._note("mark_preempting", None)

    def finish(self, exit_code: int) -> None:
        self._note("finish", exit_code)

    @staticmethod
    def Settings(**options: Any) -> dict[str, Any]:  # noqa: N802  (W&B's name)
        return options

    def of(self, name: str) -> list[Any]:
        return [what for called, what in self.calls if called == name]


@pytest.fixture
def wandb(monkeypatch):
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def opt(options_to_log, workdir: Path) -> dict[str, Any]:
    options_to_log["path"]["pretrain_network_g"] = "weights/g.pth"
    options_to_log["datasets"]["train"]["dataroot_gt"] = str(workdir / "sets/GT.lmdb")
    options_to_log["train"]["optim_g"] = {"type": "Adam", "betas": (0.9, 0.99)}
    options_to_log["logger"] = {"wandb": {"project": "mine", "resume_id": None}}
    return options_to_log


def _train(opt: dict[str, Any], iteration: int) -> None:
    log = RunLog(opt, iteration - 1)
    log.training(0, iteration, [1e-4], {"time": 0.5, "data_time": 0.1}, {"l_g_pix": 0.5, "d_accuracy": 1.0})
    log.validation(iteration, SetResult("tiny", "Set5", {"psnr": {"a": 30.0}}))
    log.close()


def _leave(log: RunLog, error: Exception) -> None:
    """As the loop does that ends by an error."""
    with contextlib.suppress(type(error)), contextlib.closing(log):
        raise error


class TestAskedFor:
    def test_project_of(self, opt):
        assert project_of(opt) == "mine"
        assert project_of(opt | {"name": "debug_tiny"}) is None
        for logger in ({}, {"wandb": None}, {"wandb": {"project": None}}, {"wandb": {"resume_id": "x"}}, None):
            assert project_of(opt | {"logger": logger}) is None

    def test_only_then(self, opt, monkeypatch):
        monkeypatch.setattr(wandb_log, "is_installed", lambda: pytest.fail("not asked for"))
        opt["logger"] = {"wandb": {"project": None}}
        _train(opt, 1)
        assert not Path("experiments/tiny/wandb.json").exists()

    def test_only_rank_0(self, opt, wandb):
        _train(opt | {"rank": 1}, 1)
        assert wandb.calls == []

    def test_without_the_package(self, opt, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(OptionError, match=r"logger\.wandb\.project: .*pip install wandb"):
            RunLog(opt, 0)
        assert not list(Path("experiments/tiny").iterdir()), "before anything is written"

    def test_a_folder_of_that_name_is_not_it(self, workdir, monkeypatch):
        """W&B itself leaves a folder wandb/ where a run was started, which Python takes for a package."""
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        (workdir / "wandb/run-1").mkdir(parents=True)
        monkeypatch.setattr(sys, "path", [str(workdir)])
        assert importlib.util.find_spec("wandb") is not None
        assert not is_installed()


class TestWandbRun:
    def test_what_is_sent(self, opt, wandb):
        _train(opt, 10)
        (init,) = wandb.of("init")
        assert (init["project"], init["name"], init["resume"]) == ("mine", "tiny", "allow")
        assert init["dir"] == opt["path"]["experiments_root"]
        assert init["config"]["train"] == {"total_iter": 100, "optim_g": {"type": "Adam", "betas": [0.9, 0.99]}}
        assert init["settings"] == {"disable_git": True, "disable_code": True, "console": "off"}
        assert wandb.of("define_metric") == [("iter", None), ("*", "iter")]
        assert wandb.of("log") == [
            {"iter": 10, "losses/l_g_pix": 0.5, "d_accuracy": 1.0, "images_per_s": 8.0, "lr": 1e-4},
            {"iter": 10, "metrics/Set5/psnr": 30.0},
        ]
        assert wandb.of("finish") == [0]

    def test_no_local_paths(self, opt, wandb, workdir):
        _train(opt, 1)
        sent = json.dumps(wandb.of("init")[0]["config"])
        assert str(workdir) not in sent
        assert "weights/g.pth" in sent, "those under the working directory stay"
        assert '"dataroot_gt": "GT.lmdb"' in sent

    def test_a_run_that_goes_on_goes_on_there(self, opt, wandb):
        _train(opt, 1)
        first = wandb.of("init")[0]["id"]
        assert json.loads(Path("experiments/tiny/wandb.json").read_text()) == {"id": first, "project": "mine"}
        _train(opt, 2)
        assert wandb.of("init")[1]["id"] == first
        opt["logger"]["wandb"]["resume_id"] = "chosen"
        _train(opt, 3)
        assert wandb.of("init")[2]["id"] == "chosen"
        opt["logger"]["wandb"]["resume_id"] = None
        _train(opt, 4)
        assert wandb.of("init")[3]["id"] == "chosen", "and from then on"

    @pytest.mark.parametrize("text", ["", "[1]", '{"id": 3}', '{"id": ""}'])
    def test_a_damaged_id(self, opt, wandb, text):
        Path("experiments/tiny/wandb.json").write_text(text)
        _train(opt, 1)
        assert len(wandb.of("init")[0]["id"]) == 8

    def test_two_runs_are_two(self, opt, wandb):
        for name in ("a", "b"):
            Path(f"experiments/{name}").mkdir()
            opt["path"]["experiments_root"] = f"experiments/{name}"
            _train(opt, 1)
        assert len({init["id"] for init in wandb.of("init")}) == 2


class TestFailures:
    def test_it_refuses_at_the_start(self, opt, wandb):
        wandb.failing = {"init"}
        with pytest.raises(OptionError, match=r"says: no init today; .*wandb login.*WANDB_MODE=offline"):
            RunLog(opt, 0)

    def test_later_the_run_goes_on_without_it(self, opt, wandb, caplog):
        wandb.failing = {"log"}
        run = WandbRun(opt)
        run.log(1, {"l_g_pix": 1.0})
        run.log(2, {"l_g_pix": 1.0})
        run.close()
        assert len(wandb.of("log")) == 1
        assert wandb.of("finish") == []

    def test_an_end_that_fails(self, opt, wandb):
        wandb.failing = {"finish"}
        WandbRun(opt).close()
        assert wandb.of("finish") == [0]

    @pytest.mark.parametrize(
        ("error", "calls"), [(KeyError, [("finish", 1)]), (Preempted, [("mark_preempting", None), ("finish", 75)])]
    )
    def test_a_run_that_did_not_come_to_its_end(self, opt, wandb, error, calls):
        log = RunLog(opt, 0)
        _leave(log, error())
        assert wandb.calls[-len(calls) :] == calls


def test_shareable():
    assert shareable({1: Path("/a/b"), "w": r"C:\data\x.lmdb", "h": "~/sets/", "u": "x/y", "n": None, "t": True}) == {
        "1": "/a/b",
        "w": "x.lmdb",
        "h": "sets",
        "u": "x/y",
        "n": None,
        "t": True,
    }


@pytest.mark.skipif(not INSTALLED, reason="wandb is not installed")
def test_the_real_package_offline(opt, monkeypatch, workdir):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    _train(opt, 1)
    time.sleep(1.1)  # its folders' names have the second in them
    log = RunLog(opt, 1)
    log.training(0, 2, [1e-4], {"time": 0.5, "data_time": 0.1}, {"l_g_pix": 0.5})
    log.validation(2, SetResult("tiny", "Set5", {"psnr": {"a": 30.0}}))
    _leave(log, Preempted())
    own_id = json.loads(Path("experiments/tiny/wandb.json").read_text())["id"]
    files = sorted(Path("experiments/tiny/wandb").glob(f"offline-run-*-{own_id}/run-{own_id}.wandb"))
    assert len(files) == 2, "two starts of one run"
    for file in files:
        deadline = time.monotonic() + 20
        while b"metrics/Set5/psnr" not in file.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)  # W&B's own process writes it
        content = file.read_bytes()
        for text in (b"losses/l_g_pix", b"metrics/Set5/psnr", b"GT.lmdb"):
            assert text in content, text
        assert str(workdir / "sets").encode() not in content
    assert not Path("wandb").exists(), "all of it lies in the run's folder"
