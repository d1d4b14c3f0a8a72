"""Measure a training step alone and beside a busy process, for several spin counts of OpenMP's threads.

The step is that of the small L1 stage or of Gram-GAN (options/*_sample.yml) on random images. Each setting runs in
separate processes, since libgomp reads it when it is loaded; they take turns, first alone, then beside a process that
computes all the time. Medians over the rounds.

    python benchmarks/busy_machine.py            # about 8 minutes on 2 cores; nothing else should run
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's own": {},
    "count 100000": {"GOMP_SPINCOUNT": "100000"},
    "count 30000": {"GOMP_SPINCOUNT": "30000"},
    "count 10000": {"GOMP_SPINCOUNT": "10000"},
    "count 3000": {"GOMP_SPINCOUNT": "3000"},
    "count 1000": {"GOMP_SPINCOUNT": "1000"},
    "count 0": {"GOMP_SPINCOUNT": "0"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def child(arguments: argparse.Namespace) -> None:
    """Take steps, and print the seconds of each as JSON."""
    import torch

    from gramgan_plugin.config import load_options, resolve_options
    from gramgan_plugin.models.build import build_model

    options = load_options([arguments.options])
    options["path"]["pretrain_network_g"] = None
    options["train"] |= {"precision": arguments.precision, "channels_last": True}
    opt = resolve_options(options, is_train=True) | {"rank": 0, "world_size": 1}
    model, data = build_model(opt), opt["datasets"]["train"]
    gt = torch.rand(data["batch_size_per_gpu"], 3, data["gt_size"], data["gt_size"])
    model.feed_data({"gt": gt, "lq": torch.nn.functional.avg_pool2d(gt, opt["scale"])})
    seconds: list[float] = []
    end = time.perf_counter() + arguments.seconds
    while len(seconds) < 5 or time.perf_counter() < end:
        mark = time.perf_counter()
        model.optimize_parameters(len(seconds) + 1)
        seconds.append(time.perf_counter() - mark)
    print(json.dumps(seconds[2:]))


def measure(setting: dict[str, str], arguments: argparse.Namespace, *, busy: bool) -> float:
    """Return the median seconds of a step."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environ = {key: value for key, value in os.environ.items() if key not in names} | setting
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--options", arguments.options]
    command += ["--seconds", str(arguments.seconds), "--precision", arguments.precision]
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=True)
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--options", default="train_rrdb_psnr_sample", help="a shipped option file")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seconds", type=float, default=6, help="of steps in each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="settings whose name holds one of these words, besides the first")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    words = arguments.only or [""]
    first = next(iter(SETTINGS))
    chosen = {name: value for name, value in SETTINGS.items() if name == first or any(word in name for word in words)}
    seconds: dict[str, dict[bool, list[float]]] = {name: {False: [], True: []} for name in chosen}
    for _ in range(arguments.rounds):
        for busy in (False, True):
            for name, setting in chosen.items():
                seconds[name][busy].append(measure(setting, arguments, busy=busy))
    medians = {name: {busy: statistics.median(v) for busy, v in values.items()} for name, values in seconds.items()}
    print(f"{arguments.options}, {os.cpu_count()} cores, s a step, and by libgomp's own setting")
    print(f"{'':16s}{'alone':>8s}{'busy':>8s}{'costs alone':>14s}{'faster busy':>14s}")
    for name, value in medians.items():
        cost, gain = value[False] / medians[first][False] - 1, medians[first][True] / value[True]
        print(f"{name:16s}{value[False]:8.3f}{value[True]:8.3f}{cost:14.1%}{gain:13.2f}x")
    if arguments.json:
        figures = {name: {"alone": value[False], "busy": value[True]} for name, value in medians.items()}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
