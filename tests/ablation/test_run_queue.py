"""The queue of runs, over a program that stands for a training: it notes its GPU and times, and ends as it is told."""

import os
import signal
import stat
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from gramgan_plugin.ablation import run_queue
from gramgan_plugin.ablation.ablation_file import AblationRun
from gramgan_plugin.ablation.run_queue import RunQueue, gpus
from gramgan_plugin.training.signals import StopRequest

TRAINING = f"""#!{sys.executable}
import os, signal, sys, time, yaml
options = yaml.safe_load(open(sys.argv[5]))
def stop(number, frame):
    print("asked to stop", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
begun = time.time()
print("arguments", *sys.argv[1:], flush=True)
end = begun + options["seconds"]
while time.time() < end:
    time.sleep(0.01)
with open("times.txt", "a") as file:
    file.write(f"{{options['name']}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}} {{begun}} {{time.time()}}\\n")
print("the reason\\n")
sys.exit(options["code"])
"""


@pytest.fixture
def queue(workdir: Path, monkeypatch):
    """Makes a queue of runs that take so many seconds and end with so many codes."""
    program = workdir / "training"
    program.write_text(TRAINING)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(run_queue.sys, "executable", str(program))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (workdir / "runs").mkdir()

    def make(codes, devices=(None,), done=(), seconds=0.3, report=lambda line: None) -> RunQueue:
        runs = [
            AblationRun(f"r{i}", f"v{i}", 0, {"name": f"r{i}", "code": code, "seconds": seconds})
            for i, code in enumerate(codes)
        ]
        return RunQueue(runs, frozenset(done), workdir / "runs", devices, ["one", "two"], report)

    return make


def _times() -> dict[str, tuple[str, float, float]]:
    lines = [line.split() for line in Path("times.txt").read_text().splitlines()]
    return {name: (device, float(begun), float(ended)) for name, device, begun, ended in lines}


def test_one_after_the_other(queue):
    lines: list[str] = []
    outcomes = queue([0, 0, 0], done=["r1"], report=lines.append).train(StopRequest())
    assert {name: one.state for name, one in outcomes.items()} == dict.fromkeys(("r0", "r1", "r2"), "finished")
    times = _times()
    assert times.keys() == {"r0", "r2"}
    assert times["r0"][2] <= times["r2"][1]
    assert [device for device, *_ in times.values()] == ["None", "None"], "the environment is left as it is"
    assert lines[:2] == ["2 of 3  r1 was finished before", "1 of 3  r0 begins"]
    assert lines[2].startswith("1 of 3  r0 is finished after 0:00:0")
    assert "; 1 left, about 0:00:0" in lines[2]
    assert lines[3] == "3 of 3  r2 begins"
    assert "left" not in lines[4]
    assert "train -opt" in Path("runs/r0.log").read_text()
    assert "--auto_resume --plugin one --plugin two" in Path("runs/r0.log").read_text()


def test_one_run_on_each_gpu(queue):
    outcomes = queue([0] * 5, devices=["3", "GPU-5"]).train(StopRequest())
    assert {one.state for one in outcomes.values()} == {"finished"}
    times = sorted(_times().values(), key=lambda one: one[1])
    assert times[1][1] < times[0][2], "two at a time"
    for device in ("3", "GPU-5"):
        own = [one for one in times if one[0] == device]
        assert len(own) >= 2
        assert all(first[2] <= second[1] for first, second in pairwise(own)), "one at a time on each"


def test_a_failure_ends_no_other(queue):
    outcomes = queue([2, 0, -9, 1], seconds=0).train(StopRequest())
    assert [one.state for one in outcomes.values()] == ["failed", "finished", "failed", "failed"]
    assert outcomes["r0"].reason == "the reason"


def test_a_signal(queue):
    """What runs is asked once to stop, what waits is not begun."""
    request = StopRequest()
    lines: list[str] = []

    def ask() -> None:
        for log in (Path("runs/r0.log"), Path("runs/r1.log")):
            while not (log.is_file() and "arguments" in log.read_text()):
                time.sleep(0.01)
        request.signal = "SIGTERM"

    thread = threading.Thread(target=ask)
    thread.start()
    outcomes = queue([0, 0, 0], devices=["0", "1"], seconds=60, report=lines.append).train(request)
    thread.join()
    assert [one.state for one in outcomes.values()] == ["stopped", "stopped", "waiting"]
    for name in ("r0", "r1"):
        assert Path(f"runs/{name}.log").read_text().count("asked to stop") == 1
    assert not any("r2" in line for line in lines)


def test_an_error_here_leaves_no_process(queue):
    def report(line: str) -> None:
        if "r1 begins" in line:
            raise KeyboardInterrupt

    started = []
    popen = run_queue.subprocess.Popen

    class Noted(popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_queue.subprocess, "Popen", Noted)
        with pytest.raises(KeyboardInterrupt):
            queue([0, 0], devices=["0", "1"], seconds=60, report=report).train(StopRequest())
    assert [one.returncode for one in started] == [-signal.SIGKILL]


def test_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for value, expected in (
        (None, ["0", "1"]),
        ("", ["0", "1"]),
        ("5, 7", ["5", "7"]),
        ("GPU-a,GPU-b,wrong", ["GPU-a", "GPU-b"]),
    ):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if value is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert gpus() == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus() == []
    assert os.environ["CUDA_VISIBLE_DEVICES"]
