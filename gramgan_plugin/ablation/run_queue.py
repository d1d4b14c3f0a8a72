"""Train runs in processes of their own, one after the other, or one on each GPU."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from gramgan_plugin.ablation.ablation_file import AblationRun
from gramgan_plugin.errors import Preempted, file_errors
from gramgan_plugin.training.signals import StopRequest
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.text import shown
from gramgan_plugin.utils.yaml_io import yaml_text

POLL = 0.1  # seconds between checks of the processes
LONGEST_REASON = 300
STOPPED = {Preempted.exit_code, -signal.SIGTERM, -signal.SIGINT, 130}
_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG
# Loaded here, since little is safe between fork and exec.
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        state: ``finished``, ``failed``, ``stopped`` (resumed by the next call) or ``waiting`` (not begun).
        reason: why it failed, one line.
        seconds: how long its process ran.
    """

    state: str
    reason: str = ""
    seconds: float = 0.0


@dataclass
class _Process:
    run: AblationRun
    device: str | None
    log: Path
    process: "subprocess.Popen[bytes]"
    started: float


@dataclass(frozen=True)
class RunQueue:
    """The runs to train and how.

    Attributes:
        runs: all runs of the ablation; those in ``done`` are not trained.
        done: the names of the finished ones.
        folder: gets each run's option file, and what its process prints.
        devices: values of CUDA_VISIBLE_DEVICES, a run at a time on each; ``[None]`` leaves it as it is.
        plugins: modules for ``--plugin``.
        report: called with each line of progress.
    """

    runs: Sequence[AblationRun]
    done: frozenset[str]
    folder: Path
    devices: Sequence[str | None]
    plugins: Sequence[str]
    report: Callable[[str], object]

    def train(self, request: StopRequest) -> dict[str, Outcome]:
        """Train the runs, and return what became of each, by name.

        Args:
            request: after its signal no run is begun, and those that are being trained save and stop.

        Raises:
            UserError: if a file cannot be written.
        """
        outcomes = {run.name: Outcome("finished" if run.name in self.done else "waiting") for run in self.runs}
        for run in self.runs:
            if run.name in self.done:
                self._report(run, "was finished before")
        waiting = deque(run for run in self.runs if run.name not in self.done)
        free, active, asked = list(self.devices), list[_Process](), False
        try:
            while active or (waiting and request.signal is None):
                while waiting and free and request.signal is None:
                    active.append(self._start(waiting.popleft(), free.pop(0)))
                time.sleep(POLL)
                if request.signal is not None and not asked:
                    asked = True
                    for one in active:
                        one.process.terminate()
                for one in [one for one in active if one.process.poll() is not None]:
                    active.remove(one)
                    free.append(one.device)
                    outcomes[one.run.name] = outcome = _outcome(one)
                    left = _time_left(outcomes, len(waiting) + len(active), len(self.devices))
                    self._report(one.run, _in_words(outcome) + left)
        finally:
            for one in active:
                one.process.kill()
                one.process.wait()
        return outcomes

    def _start(self, run: AblationRun, device: str | None) -> _Process:
        options, log = self.folder / f"{run.name}.yml", self.folder / f"{run.name}.log"
        replace_file(options, yaml_text(run.options).encode())
        command = [sys.executable, "-m", "gramgan_plugin", "train", "-opt", str(options), "--auto_resume"]
        command += [part for plugin in self.plugins for part in ("--plugin", plugin)]
        environment = {**os.environ, **({} if device is None else {"CUDA_VISIBLE_DEVICES": device})}
        self._report(run, "begins" + ("" if device is None else f" on GPU {device}"))
        with file_errors(log), log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which asks the others to stop
                preexec_fn=None if _LIBC is None else _die_with_parent,
            )
        return _Process(run, device, log, process, time.monotonic())

    def _report(self, run: AblationRun, state: str) -> None:
        number = 1 + [one.name for one in self.runs].index(run.name)
        self.report(f"{number} of {len(self.runs)}  {run.name} {state}")


def gpus() -> list[str]:
    """Return the values of CUDA_VISIBLE_DEVICES that choose one GPU each, of those that this process may use."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    numbers = [str(number) for number in range(torch.cuda.device_count())]
    return (named or numbers)[: len(numbers)]


def _die_with_parent() -> None:
    # A killed queue would otherwise leave a process behind that holds the run's folder.
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _outcome(one: _Process) -> Outcome:
    code, seconds = one.process.returncode, time.monotonic() - one.started
    if code == 0:
        return Outcome("finished", seconds=seconds)
    if code in STOPPED:
        return Outcome("stopped", seconds=seconds)
    if code == -signal.SIGKILL:
        return Outcome("failed", "its process was killed (SIGKILL); did the machine's memory run out?", seconds)
    return Outcome("failed", _last_line(one.log) or f"its process ended with {code}", seconds)


def _last_line(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 2**14))
        lines = stream.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return shown(last.removeprefix("basicsr train: "), LONGEST_REASON)


def _in_words(outcome: Outcome) -> str:
    took = timedelta(seconds=round(outcome.seconds))
    if outcome.state == "failed":
        return f"failed after {took}: {outcome.reason}"
    return f"is {outcome.state} after {took}"


def _time_left(outcomes: dict[str, Outcome], runs: int, devices: int) -> str:
    """Return the end of a line: the time for so many runs, from those that were trained now."""
    seconds = [one.seconds for one in outcomes.values() if one.state == "finished" and one.seconds > 0]
    if not runs or not seconds:
        return ""
    left = sum(seconds) / len(seconds) * -(-runs // devices)
    return f"; {runs} left, about {timedelta(seconds=round(left))}"
