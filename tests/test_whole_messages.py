"""The whole texts of the messages that users meet most.

Other tests state only where a mistake is and of which kind it is (``tests/messages.py``), so that a sentence can be
reworded; these show how the sentences read.
"""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from gramgan_plugin.checkpoints import weights_cache
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.cli.failures import explain
from gramgan_plugin.cli.main import main
from tests.messages import assert_message


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(options: dict[str, Any]) -> None:
        *way, last = path.split(":")
        for key in way:
            options = options[key]
        options[last] = value

    return change


def _weights(content: bytes | dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """A file of weights for G: these bytes, or what torch saves of it."""

    def change(options: dict[str, Any]) -> None:
        if isinstance(content, bytes):
            Path("g.pth").write_bytes(content)
        else:
            torch.save(content, "g.pth")
        options["path"]["pretrain_network_g"] = "g.pth"

    return change


def _lq_of_gts_size(options: dict[str, Any]) -> None:
    options["datasets"]["val"]["dataroot_lq"] = options["datasets"]["val"]["dataroot_gt"]


def _large_crop(options: dict[str, Any]) -> None:
    options["datasets"]["train"]["gt_size"] = options["network_d"]["input_size"] = 128


VGG = {"type": "VGGPerceptualLoss", "vgg_weights": "vgg19.pth"}
OPTIONS = [
    (
        _set("train:gram_patch_opt:pach_size", 4),
        "train.gram_patch_opt.pach_size: unknown option of GramPatchLoss; did you mean 'patch_size'?",
    ),
    (_set("scale", "4"), "scale: expected a whole number, not '4'; leave out the quotes"),
    (lambda options: options["network_g"].pop("num_in_ch"), "network_g.num_in_ch: missing; RRDBNet needs it"),
    (
        _set("model_type", "GramGANMode1"),
        "model_type: no model named 'GramGANMode1' is registered; did you mean 'GramGANModel'?",
    ),
    (
        _set("datasets:train:gt_size", 66),
        "datasets.train.gt_size: 66 is not a multiple of scale 4; take 68 or 64",
    ),
    (
        _set("datasets:train:dataroot_gt", "no/GT.lmdb"),
        "datasets.train.dataroot_gt: no/GT.lmdb: no such folder; basicsr prepare makes it",
    ),
    (
        _lq_of_gts_size,
        "datasets.val.dataroot_lq: SET/test/GT/astronaut.png: GT of 96x96 is not 4 times its LQ of 96x96, but 1 times",
    ),
    (
        _large_crop,
        "datasets.train.dataroot_gt: SET/GT.lmdb: 000001_s001: GT of 96x96 is smaller than gt_size 128 "
        "(8 of 8 images); set a smaller gt_size",
    ),
    (_set("path:pretrain_network_g", "no.pth"), "path.pretrain_network_g: no.pth: no such checkpoint file"),
    (
        _weights(b"PK\x03\x04 cut"),
        "path.pretrain_network_g: g.pth: a damaged checkpoint: its end is missing or its directory is not readable; "
        "copy or fetch it again",
    ),
    (
        _weights({"params": {"conv_first.weight": torch.zeros(64, 3, 3, 3)}}),
        "path.pretrain_network_g: RRDBNet: 0 of 42 tensors fit those of g.pth [params]; 41 not in the file: "
        "conv_first.bias, body.0.rdb1.conv1.weight, body.0.rdb1.conv1.bias, body.0.rdb1.conv2.weight and 37 more; "
        "1 of another shape: conv_first.weight (64, 3, 3, 3) for (8, 3, 3, 3); "
        "that is less than half of the network: give a checkpoint of this network, of the same options",
    ),
    (_set("train:perceptual_opt", VGG), "train.perceptual_opt.vgg_weights: vgg19.pth: no such file"),
]
COMMANDS = [
    (
        ["check", "-opt", "train_gramgan_x5"],
        "train_gramgan_x5: no such option file; did you mean 'train_gramgan_x4.yml'?",
    ),
    (
        ["upscale", "photos", "-m", "RealESRGAN_x4pluss"],
        "RealESRGAN_x4pluss: neither a file nor a name of public weights; "
        "did you mean 'RealESRGAN_x4plus' or 'RealESRGAN_x2plus'?",
    ),
    (
        ["prepare", "folder", "empty", "--out", "set"],
        "empty: no images in it (.bmp, .jpeg, .jpg, .png, .ppm, .tif, .tiff, .webp); "
        "for those in its subfolders pass --recursive",
    ),
]
MACHINE = [
    (OSError(errno.ENOSPC, "No space left on device", "x.pth"), "x.pth: no space left on the disk; free some"),
    (
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation"),
        "out of memory (CUDA out of memory. Tried to allocate 20.00 GiB); "
        "lower datasets.train.batch_size_per_gpu or gt_size, or set train.precision: bf16",
    ),
    (
        ModuleNotFoundError("No module named 'basicsr'", name="basicsr"),
        "BasicSR is not installed, which this command needs: pip install basicsr==1.4.2, on Python 3.11 or 3.12 "
        "(its last release cannot be built on later ones)",
    ),
]


@pytest.mark.parametrize(("change", "message"), OPTIONS)
def test_option_files(tiny_options, write_options, sample_pair, capsys, change, message):
    change(tiny_options)
    assert main(["check", "-opt", write_options(tiny_options)]) == 2
    assert capsys.readouterr().err.replace(str(sample_pair), "SET") == f"basicsr check: {message}\n"


@pytest.mark.parametrize(("command", "message"), COMMANDS)
def test_commands(workdir, photo_folder, capsys, command, message):
    Path("empty").mkdir()
    Path("photos").symlink_to(photo_folder)
    assert main(command) == 2
    assert capsys.readouterr().err == f"basicsr {command[0]}: {message}\n"


@pytest.mark.parametrize(("error", "message"), MACHINE)
def test_machine(error, message):
    assert explain(error, "train") == [message]


def test_fewer_gpus_than_requested(tiny_options, write_options, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["train", "-opt", write_options(tiny_options | {"num_gpu": 2})]) == 2
    message = "num_gpu: 2 requested, 0 found; `num_gpu: auto` uses those found"
    assert capsys.readouterr().err == f"basicsr train: {message}\n"


def test_a_run_folder_in_use(tiny_options, write_options, workdir, capsys):
    run = workdir / "experiments/tiny"
    run.mkdir(parents=True)
    with FileLock(run / ".lock"):
        assert main(["train", "-opt", write_options(tiny_options)]) == 2
    message = f"{run}: in use by another process; wait for it, or give this run another `name`"
    assert capsys.readouterr().err == f"basicsr train: {message}\n"


def test_a_download_that_fails(capsys, monkeypatch, weights_folder):
    url = "http://127.0.0.1:1/vgg19-dcbb9e9d.pth"
    monkeypatch.setitem(WEIGHTS, "vgg19", replace(WEIGHTS["vgg19"], url=url))
    limits = weights_cache.network_for
    monkeypatch.setattr(weights_cache, "network_for", lambda weights: replace(limits(weights), retries=0))
    assert main(["weights", "fetch", "vgg19"]) == 3
    assert capsys.readouterr().err == (
        f"failed vgg19: {url} cannot be downloaded: the connection fails or was cut; "
        f"try again later, or get vgg19-dcbb9e9d.pth elsewhere and put it into {weights_folder}\n"
    )


class TestAssertMessage:
    LINES = "a.b: missing; add it\na.c: at least 1, not 0\n"

    def test_what_it_accepts(self):
        assert_message(self.LINES, "a.b", "missing")
        assert_message(self.LINES.splitlines(), "a.c", "at least 1", "not 0")
        assert_message(ValueError("x.pth: cut"), "x.pth", "cut")

    @pytest.mark.parametrize(
        "wrong",
        [("a", "b"), ("a.b", "at least 1"), ("a.c", "missing"), ("a.c", "at least 1", "not 2"), ("b", "missing")],
    )
    def test_what_it_refuses(self, wrong):
        with pytest.raises(AssertionError):
            assert_message(self.LINES, *wrong)
