"""Runs in processes of their own that are killed and stopped, and what becomes of them."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gramgan_plugin.checkpoints.resume import damage, newest_checkpoint

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds; the machine may be busy

# Draws from every generator that a model may draw from.
NOISY = """
import random
import numpy
import torch
from basicsr.utils.registry import MODEL_REGISTRY
from gramgan_plugin.models.gramgan_model import GramGANModel

@MODEL_REGISTRY.register()
class NoisyModel(GramGANModel):
    def feed_data(self, data):
        super().feed_data(data)
        self.lq = self.lq + 0.01 * (torch.randn_like(self.lq) + random.random() + numpy.random.rand())
"""
STUCK = """
import time
from basicsr.utils.registry import MODEL_REGISTRY
from gramgan_plugin.models.gramgan_model import GramGANModel

@MODEL_REGISTRY.register()
class StuckModel(GramGANModel):
    def optimize_parameters(self, current_iter):
        print("stuck", flush=True)
        time.sleep(600)
"""


# One process imports torch and all, which takes seconds, and then forks a training process for each line it reads.
FORKS = """
import json, os, sys
import gramgan_plugin, basicsr
import gramgan_plugin.training.loop
from gramgan_plugin.cli.main import main

for line in sys.stdin:
    order = json.loads(line)
    if "poll" in order:
        ended, status = os.waitpid(order["poll"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(order["folder"])
        os.environ.update(order["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.exit(main(["train", *order["arguments"]]))
    print(pid, flush=True)
"""


class Forks:
    """Starts training processes."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, order: dict[str, Any]) -> Any:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Run:
    """A training process."""

    def __init__(self, forks: Forks, folder: Path, name: str, *arguments: str, **environment: str) -> None:
        self.forks, self.code = forks, None
        self.folder = folder / "experiments" / name
        self.file = folder / f"output-{time.monotonic_ns()}.txt"
        order = {"arguments": arguments, "environment": environment, "folder": str(folder), "output": str(self.file)}
        self.before = len(self.iterations())
        self.pid: int = forks.ask(order)

    def output(self) -> str:
        return self.file.read_text() if self.file.exists() else ""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> bool:
        if self.code is None:
            self.code = self.forks.ask({"poll": self.pid})
        return self.code is not None

    def wait(self, patience: float = PATIENCE) -> int | None:
        """Its exit code, negative for a signal."""
        end = time.monotonic() + patience
        while not self.ended():
            assert time.monotonic() < end, f"too slow:\n{self.output()}"
            time.sleep(0.005)
        return self.code

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert not self.ended(), f"ended with {self.code}:\n{self.output()}"
            assert time.monotonic() < end, f"too slow:\n{self.output()}"
            time.sleep(0.005)

    def wait_for_iteration(self, iteration: int) -> None:
        """Until this process has come so far."""
        self.wait_for(lambda: any(reached >= iteration for reached in self.iterations()[self.before :]))

    def iterations(self) -> list[int]:
        """Those that it, and those before it in its folder, have logged."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record["iter"] for record in records if "lr" in record]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.process.communicate()


@pytest.fixture
def start(forks, workdir) -> Iterator[Any]:
    """Starts a run in the working directory."""
    started: list[Run] = []

    def run(name: str, *arguments: str, **environment: str) -> Run:
        started.append(Run(forks, workdir, name, *arguments, **environment))
        return started[-1]

    yield run
    for one in started:
        if not one.ended():
            one.send(signal.SIGKILL)
            one.wait()


def _state(run: Path, iteration: int) -> dict[str, Any]:
    """All that a checkpoint holds."""
    files = {net: run / f"models/net_{net}_{iteration}.pth" for net in "gd"}
    files["state"] = run / f"training_states/{iteration}.state"
    return {key: torch.load(path, weights_only=True) for key, path in files.items()}


def _differences(one: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in _differences(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [line for i in range(len(one)) for line in _differences(one[i], other[i], f"{where}[{i}]")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [where]


class TestKilled:
    def test_again_and_again_ends_in_the_same_bits(self, tiny_options, write_options, start, workdir):
        """kill -9 at any moment, in turns with the signals that ask for an end."""
        total, drawn = 36, random.Random(7)
        tiny_options |= {"name": "killed", "model_type": "NoisyModel"}
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 1
        tiny_options["train"] |= {"total_iter": total}
        tiny_options["val"] |= {"val_freq": 6, "save_img": False}
        tiny_options["logger"] |= {"save_checkpoint_freq": 3}
        (workdir / "noisy.py").write_text(NOISY)
        command = ["-opt", write_options(tiny_options), "--plugin", "noisy", "--auto_resume"]
        straight = start("straight", *command, "--force_yml", "name=straight")
        moments = sorted(drawn.sample(range(4, total - 6), 6))
        kinds = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1]
        for moment, kind in zip(moments, kinds, strict=True):
            run = start("killed", *command)
            run.wait_for_iteration(moment)
            time.sleep(drawn.uniform(0, 0.05))
            run.send(kind)
            if kind == signal.SIGKILL:
                assert run.wait() == -signal.SIGKILL
                continue
            assert run.wait() == 75, run.output()
            assert f"basicsr: {kind.name}: the run will save and stop" in run.output()
            last = run.output().splitlines()[-1]
            match = re.fullmatch(
                rf"basicsr train: stopped by {kind.name} after iteration (\d+), whose state is saved; run the same "
                r"command again with --auto_resume to resume",
                last,
            )
            assert match, last
            states = run.folder / "training_states"
            assert newest_checkpoint(states) == states / f"{match[1]}.state"
            assert run.iterations()[-1] == int(match[1])
        run = start("killed", *command)
        assert run.wait() == 0, run.output()
        assert straight.wait() == 0, straight.output()
        assert _differences(_state(straight.folder, total), _state(run.folder, total)) == []
        assert set(run.iterations()) == set(range(1, total + 1))
        left = [path for path in run.folder.rglob("*") if ".tmp-" in path.name]
        assert not left, "what kills have left half written is gone"

    def test_a_second_interrupt_ends_at_once(self, tiny_options, write_options, start, workdir):
        tiny_options |= {"model_type": "StuckModel"}
        (workdir / "stuck.py").write_text(STUCK)
        run = start("tiny", "-opt", write_options(tiny_options), "--plugin", "stuck")
        run.wait_for(lambda: "stuck" in run.output().splitlines())
        run.send(signal.SIGINT)
        run.wait_for(lambda: "a second Ctrl-C ends it at once" in run.output())
        assert not run.ended()
        run.send(signal.SIGINT)
        assert run.wait(10) in (-signal.SIGINT, 128 + signal.SIGINT)


def test_two_processes_stop_together(tiny_options, write_options, start):
    """A signal to one of them."""
    tiny_options["train"]["total_iter"] = 100_000
    tiny_options["datasets"]["train"]["batch_size_per_gpu"] = 1
    tiny_options["logger"]["save_checkpoint_freq"] = 100_000
    tiny_options["val"]["val_freq"] = 100_000
    command = ["-opt", write_options(tiny_options), "--launcher", "pytorch"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    first, second = (start("tiny", *command, **place, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2))
    first.wait_for_iteration(3)
    second.send(signal.SIGTERM)
    assert [run.wait() for run in (first, second)] == [75, 75], first.output() + second.output()
    assert "basicsr train: another process of this run ends it" in first.output()
    match = re.search(r"stopped by SIGTERM after iteration (\d+), whose state is saved", second.output())
    assert match, second.output()
    state = first.folder / f"training_states/{match[1]}.state"
    assert damage(state) is None
    assert len(torch.load(state, weights_only=True)["random"]) == 2
