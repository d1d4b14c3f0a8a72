"""Create, archive and lock ``experiments/NAME/``, and record in it what a repeat of the run needs."""

import logging
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.models.components import with_defaults
from gramgan_plugin.utils.io import JsonLines, is_count, lock_holder, read_lines, replace_file, save_json
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.yaml_io import yaml_text

logger = logging.getLogger("basicsr")

HOLDER = ".lock.json"
PACKAGES = ("gramgan-plugin", "basicsr", "torch", "torchvision", "numpy", "opencv-python", "lmdb", "faiss-cpu")
# Environment variables that a result or its speed may depend on.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ATEN_CPU_CAPABILITY",
)


@contextmanager
def open_run_folder(folder: Path, *, keep: bool, report: Callable[[int, str], object] = logger.log) -> Iterator[Path]:
    """Hold a run's folder for as long as the run lives.

    Args:
        folder: ``experiments/NAME`` or ``results/NAME``.
        keep: use a folder that exists (resume). Otherwise it is renamed to ``NAME_archived_TIME``, as upstream does,
            and a new one is made.
        report: called with a level of ``logging`` and a line if the folder is renamed.

    Yields:
        The folder, with its lock held.

    Raises:
        UserError: if another run holds it; the message says on which machine and which process.
    """
    if folder.exists() and not keep:
        with _hold(folder):
            archive = folder.with_name(f"{folder.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}")
            report(logging.INFO, f"{folder} was there; it is now {_release_name(folder, archive)}")
    folder.mkdir(parents=True, exist_ok=True)
    with _hold(folder):
        yield folder


def record_run(folder: Path, opt: dict[str, Any], iteration: int = 0) -> None:
    """Write what is needed to repeat the run: ``options.yml`` and ``environment.json``.

    The options are resolved and have the defaults of networks, losses, optimizers, schedule and metrics, too. A run
    may be resumed on another machine: both files describe its latest start, and ``starts.jsonl`` has a line for each
    start of training.

    Args:
        folder: the run's.
        opt: resolved options.
        iteration: the iteration that it is resumed from; 0 for a new run.
    """
    replace_file(folder / "options.yml", yaml_text(with_defaults(opt)).encode())
    facts = environment(opt)
    save_json(facts, folder / "environment.json")
    if opt.get("is_train", True):
        metrics = folder / "metrics.jsonl"
        lines = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
        started = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "iteration": iteration, "metrics_lines": lines}
        starts = JsonLines(folder / "starts.jsonl")
        starts.append({**started, **facts})
        starts.close()


def record_data(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of the training data, with its fingerprint, as ``data.json``.

    Args:
        folder: the run's.
        facts: of ``TrainingData.facts``.
    """
    save_json(dict(facts), folder / "data.json")


def recorded_results(run: Path, iteration: int, datasets: Iterable[str]) -> dict[str, dict[str, float]] | None:
    """Return the validation results of an iteration in a run's ``metrics.jsonl``, or None unless all sets have some.

    A checkpoint is written before the validation of its iteration, and the run may have been killed between the two.
    Results from before the last start at an earlier iteration belong to weights that the run no longer has.

    Returns:
        set -> metric -> mean.
    """
    results: dict[str, dict[str, float]] = {}
    try:
        starts = [record for _, record in read_lines(run / "starts.jsonl")] if (run / "starts.jsonl").is_file() else []
        before = [start for start in starts if is_count(start.get("iteration")) and start["iteration"] < iteration]
        first = before[-1].get("metrics_lines", 0) if before else 0
        for number, record in read_lines(run / "metrics.jsonl") if (run / "metrics.jsonl").is_file() else ():
            values = section(record, "metrics")
            if record.get("iter") == iteration and "dataset" in record and number > first:
                numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
                results[str(record["dataset"])] = numbers
    except (UserError, TypeError, OverflowError):
        return None
    return results if {*datasets} <= results.keys() else None


def environment(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result may depend on besides the options and the data.

    That is the command line as given, the seed, processes, devices and threads, versions, and the commit and dirty flag
    of the working directory if it is a git checkout (no remotes).
    """
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "command": _command(sys.argv),
        "seed": opt.get("manual_seed"),
        "processes": opt.get("world_size", 1),
        **_devices(opt),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": packages,
        "git": _git(),
    }


def _command(argv: list[str]) -> list[str]:
    """Return the command line as it was typed, without the path of the program."""
    program = Path(argv[0]) if argv else Path()
    called = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return [*called, *argv[1:]]


def _devices(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the devices that this process uses, and the versions of what computes on them."""
    on_gpu = torch.cuda.is_available() and int(opt.get("num_gpu") or 0) > 0
    count = torch.cuda.device_count() if opt.get("dist") else int(opt.get("num_gpu") or 0)
    return {
        "devices": [torch.cuda.get_device_name(number) for number in range(count)]
        if on_gpu
        else [opt.get("device") or "cpu"],
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
    }


def _git() -> dict[str, Any] | None:
    try:
        commit = _run_git("rev-parse", "HEAD")
        dirty = bool(_run_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _run_git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        with file_errors(folder / ".lock"):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{folder}: in use by {lock_holder(folder / HOLDER)}; wait for it, or give this run another `name`"
        ) from error
    try:
        save_json({"host": socket.gethostname(), "pid": os.getpid()}, folder / HOLDER)
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _release_name(folder: Path, archive: Path) -> Path:
    number = 1
    target = archive
    while target.exists():
        number += 1
        target = archive.with_name(f"{archive.name}_{number}")
    (folder / HOLDER).unlink(missing_ok=True)
    folder.rename(target)
    return target
