import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import torch

from tests.training.two_processes import Processes, together
from tests.training.two_processes import basicsr as command

DIED = "another process of this run has died"


# Keeps what each process has after each iteration, and brings a discriminator whose samples do not mix.
WATCHED = """
import os
from pathlib import Path

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from gramgan_plugin.archs import GramGANDiscriminator
from gramgan_plugin.models.gramgan_model import GramGANModel
from torch import nn


@ARCH_REGISTRY.register()
class PlainDiscriminator(GramGANDiscriminator):
    def __init__(self, num_in_ch: int = 3, num_feat: int = 4, input_size: int = 64) -> None:
        super().__init__(num_in_ch, num_feat, input_size)
        for name, module in list(self.named_children()):
            if isinstance(module, nn.BatchNorm2d):
                setattr(self, name, nn.Identity())
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.data *= 2.5  # or it answers nearly the same to all images


step = GramGANModel.optimize_parameters


def optimize_parameters(self, current_iter):
    step(self, current_iter)
    state = {}
    for net in ("net_g", "net_d"):
        for name, parameter in self.get_bare_model(getattr(self, net)).named_parameters():
            state[f"weight of {net}.{name}"] = parameter.detach().clone()
            state[f"gradient of {net}.{name}"] = parameter.grad.clone()
    state |= {f"average of {name}": parameter for name, parameter in self.net_g_ema.state_dict().items()}
    folder = Path("watched") / self.opt["name"]
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / f"{current_iter}_{os.environ['RANK']}.pt")


GramGANModel.optimize_parameters = optimize_parameters
"""


def watched(name: str, iteration: int, rank: int = 0, folder: str = ".") -> dict[str, torch.Tensor]:
    """What a process had after an iteration."""
    return torch.load(f"{folder}/watched/{name}/{iteration}_{rank}.pt", weights_only=True)


def run_files(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def records(folder: str, key: str) -> list[dict[str, Any]]:
    """The records of the only run in a folder that have a key."""
    (path,) = Path(folder, "experiments").glob("*/metrics.jsonl")
    return [record for line in path.read_text().splitlines() if key in (record := json.loads(line))]


def validations(folder: str) -> list[dict[str, Any]]:
    return records(folder, "metrics")


@pytest.fixture
def gan_options(tiny_options, photos, workdir) -> dict[str, Any]:
    """A small GAN whose weights show what the gradients were (SGD), in which one sample knows nothing of another."""
    (workdir / "watched.py").write_text(WATCHED)
    sgd = {"type": "SGD", "lr": 0.02}
    tiny_options["network_d"]["type"] = "PlainDiscriminator"
    tiny_options["train"] |= {"optim_g": dict(sgd), "optim_d": dict(sgd)}
    tiny_options["train"]["gan_opt"]["loss_weight"] = 1.0
    tiny_options["train"]["gram_patch_opt"] |= {"loss_weight": 300.0, "affine_magnitude": 0.05}
    tiny_options["datasets"]["val"] = {
        "name": "photos",
        "type": "PairedSRDataset",
        "dataroot_gt": str(photos),
        "lq": "bicubic",
    }
    tiny_options["val"] |= {"val_freq": 2, "compare": 2}
    return tiny_options


def train(*arguments: str) -> int:
    return command("train", "-opt", "options.yml", "--plugin", "watched", *arguments)


def train_apart(*arguments: str) -> int:
    """Each process in a folder of its own, where it is seen what it writes."""
    folder = Path(f"process{os.environ['RANK']}")
    folder.mkdir()
    for name in ("options.yml", "watched.py"):
        shutil.copy(name, folder)
    os.chdir(folder)
    return train(*arguments)


def apart(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], tolerance: float) -> list[str]:
    """The tensors that differ by more than rounding, measured by the largest of their kind and network."""
    largest: dict[str, float] = {}
    for key, tensor in two.items():
        kind = key.partition(".")[0]
        largest[kind] = max(largest.get(kind, 0.0), float(tensor.norm()))
    return [
        key
        for key, tensor in two.items()
        if (one[key] - tensor).norm() > tolerance * max(float(tensor.norm()), 0.01 * largest[key.partition(".")[0]])
    ]


class TestTraining:
    def test_two_processes(self, gan_options, write_options, workdir, monkeypatch):
        """They agree with each other, and with one that has the doubled batch; they resume; only the first writes."""
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it: other sums, other bits
        write_options(gan_options)
        twice = ("--force_yml", "name=one", "datasets:train:batch_size_per_gpu=4")
        (one,) = together(1, train, *twice)
        assert one.code == 0, one.stderr
        ends = together(2, train_apart, "--launcher", "pytorch", "--force_yml", "name=two")
        assert [end.code for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr

        for iteration in range(1, 5):
            single = watched("one", iteration)
            first, second = (watched("two", iteration, rank, f"process{rank}") for rank in (0, 1))
            assert all(torch.equal(first[key], second[key]) for key in first), iteration
            # What rounding leaves grows from iteration to iteration.
            assert apart(first, single, 1e-3 if iteration == 1 else 1e-2) == [], iteration
        assert "weight of net_g.conv_first.weight" in apart(watched("one", 1), single, 1e-2), "it has moved by more"

        assert run_files("experiments/one") == run_files("process0/experiments/two")
        assert sorted(path.name for path in Path("process1").iterdir()) == ["options.yml", "watched", "watched.py"]
        logged, of_two = (records(folder, "l_g_gram")[0] for folder in (".", "process0"))
        assert {"l_g_gram", "grad_g_gram", "grad_g_gan", "grad_norm_g", "l_d_real"} <= logged.keys()
        for key in (key for key in logged if key.startswith(("l_", "grad_"))):
            assert of_two[key] == pytest.approx(logged[key], rel=1e-3), key
        for a, b in zip(validations("."), validations("process0"), strict=True):
            assert a["metrics"] == pytest.approx(b["metrics"], rel=1e-4)
        assert len(validations("process0")) == 2

        monkeypatch.chdir("process0")
        Path("watched/two").rename("watched/straight")
        for name in ("4.json", "4.state"):
            Path("experiments/two/training_states", name).unlink()
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        torchrun += ["-m", "gramgan_plugin", "train", "-opt", "options.yml", "--plugin", "watched"]
        torchrun += ["--launcher", "pytorch", "--auto_resume", "--force_yml", "name=two"]
        done = subprocess.run(torchrun, capture_output=True, text=True, check=False, timeout=150)
        assert done.returncode == 0, done.stderr[-3000:]
        assert not Path("watched/two/2_0.pt").exists(), "iterations 1 and 2 are not done again"
        straight = watched("straight", 4)
        for rank in (0, 1):
            resumed = watched("two", 4, rank)
            assert all(torch.equal(straight[key], resumed[key]) for key in straight)

    def test_one_is_killed(self, gan_options, write_options, workdir):
        gan_options["train"]["total_iter"] = 100_000
        gan_options["val"]["val_freq"] = gan_options["logger"]["save_checkpoint_freq"] = 100_000
        write_options(gan_options)
        with Processes(2, train, "--launcher", "pytorch") as processes:
            deadline = time.monotonic() + 60
            while not Path("watched/tiny/3_0.pt").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            killed = time.monotonic() - processes.start
            processes.processes[1].kill()
            first, second = processes.wait(20)
        assert second.code == -signal.SIGKILL
        assert first.code == 2, first.stderr
        assert first.seconds - killed < 10
        (line,) = [line for line in first.stderr.splitlines() if line.startswith("basicsr train: ")]
        assert DIED in line
        assert "Traceback" not in first.stderr

    def test_torchrun_is_asked_to_stop(self, gan_options, write_options, workdir, monkeypatch):
        """It hands the signal on, the run saves, its own exit code is not 0; latest.json shows it, as documented."""
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        gan_options["train"]["total_iter"] = 100_000
        gan_options["val"]["val_freq"] = gan_options["logger"]["save_checkpoint_freq"] = 100_000
        write_options(gan_options)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        torchrun += ["-m", "gramgan_plugin", "train", "-opt", "options.yml", "--launcher", "pytorch"]
        torchrun += ["--plugin", "watched", "--auto_resume"]
        latest = Path("experiments/tiny/latest.json")
        with subprocess.Popen(torchrun, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 120
            while not Path("watched/tiny/2_1.pt").exists() and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.05)
            assert not latest.exists()
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=60)
        assert process.returncode in (1, -signal.SIGABRT), stderr[-3000:]  # torchrun's own end now and then aborts
        record = json.loads(latest.read_text())
        assert record["iter"] >= 2
        assert Path("experiments/tiny", record["state"]).is_file()
        assert "stopped by SIGTERM after iteration" in stderr

    def test_one_cannot_go_on(self, gan_options, write_options, photos, workdir):
        transparent = np.zeros((64, 64, 4), np.uint8)  # which the check, which reads headers, does not find
        cv2.imwrite(str(photos / "photo1.png"), transparent)
        gan_options["val"]["on_error"] = "stop"
        write_options(gan_options)
        first, second = together(2, train, "--launcher", "pytorch", timeout=60)
        assert (first.code, second.code) == (2, 2), first.stderr + second.stderr
        assert DIED in first.stderr
        assert "photo1.png" in second.stderr
        assert "Traceback" not in first.stderr + second.stderr
        assert not list(Path("experiments/tiny").glob("*.lock.json")), "the folder is free again"
