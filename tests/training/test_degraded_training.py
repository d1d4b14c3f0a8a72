"""Training with Real-ESRGAN's data sets: LQ made in training, and photos in pairs."""

import signal
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import pytest
import skimage.data
import torch

from gramgan_plugin.cli.main import main
from gramgan_plugin.data.loaders import TrainingData
from tests.models.model_options import resolved
from tests.training.tiny_runs import log_lines, same_networks
from tests.training.two_processes import basicsr as command
from tests.training.two_processes import together

LOADING = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1, "dataset_enlarge_ratio": 1}


@pytest.fixture
def degraded_options(
    tiny_options: dict[str, Any], degradation: dict[str, Any], degraded_data: dict[str, Any], tmp_path: Path
) -> dict[str, Any]:
    """Training on five photos, smaller and larger than the 400 pixels that the data set makes of each."""
    folder = tmp_path / "GT"
    folder.mkdir()
    for number, photo in enumerate((skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut()[:430])):
        cv2.imwrite(str(folder / f"{number}.png"), photo[..., ::-1])
    cv2.imwrite(str(folder / "3.png"), skimage.data.chelsea()[:96, 100:200, ::-1])
    cv2.imwrite(str(folder / "4.png"), skimage.data.coffee()[:200, 100:300, ::-1])
    (tmp_path / "meta.txt").write_text("".join(f"{number}.png\n" for number in range(5)))
    roots = {"name": "photos", "dataroot_gt": str(folder), "meta_info": str(tmp_path / "meta.txt")}
    tiny_options["datasets"]["train"] = deepcopy(degraded_data) | roots | LOADING
    tiny_options["train"]["total_iter"] = 5
    tiny_options["logger"]["save_checkpoint_freq"] = 100
    return tiny_options | degradation | {"gt_size": 64, "queue_size": 2, "l1_gt_usm": True, "gram_gt_usm": True}


@pytest.fixture
def paired_options(tiny_options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Training on five pairs of photos that a list names."""
    lines = []
    for number in range(5):
        gt = skimage.data.coffee()[40 * number : 40 * number + 96, 60:200, ::-1]
        cv2.imwrite(str(tmp_path / f"gt{number}.png"), gt)
        cv2.imwrite(str(tmp_path / f"lq{number}.png"), cv2.resize(gt, (35, 24), interpolation=cv2.INTER_AREA))
        lines.append(f"gt{number}.png, lq{number}.png\n")
    (tmp_path / "pairs.txt").write_text("".join(lines))
    roots = {"dataroot_gt": str(tmp_path), "dataroot_lq": str(tmp_path), "meta_info": str(tmp_path / "pairs.txt")}
    kind = {"type": "RealESRGANPairedDataset", "io_backend": {"type": "disk"}, "name": "pairs"}
    tiny_options["datasets"]["train"] = kind | roots | LOADING | {"gt_size": 64, "use_hflip": True, "use_rot": False}
    tiny_options["train"]["total_iter"] = 5
    tiny_options["logger"]["save_checkpoint_freq"] = 100
    return tiny_options | {"high_order_degradation": False, "l1_gt_usm": True}


@pytest.mark.parametrize("kind", ["degraded_options", "paired_options"])
def test_a_run_that_is_stopped_and_resumed_is_the_straight_one(request, write_options, workdir, after, capsys, kind):
    file = write_options(request.getfixturevalue(kind))
    assert main(["train", "-opt", file, "--force_yml", "name=straight"]) == 0
    after(3, lambda: signal.raise_signal(signal.SIGTERM))
    assert main(["train", "-opt", file]) == 75
    assert [path.name for path in Path("experiments/tiny/training_states").glob("*.state")] == ["3.state"]
    assert main(["train", "-opt", file, "--auto_resume"]) == 0
    assert same_networks(Path("experiments/straight"), Path("experiments/tiny"), 5)
    lines = [log_lines(Path(f"experiments/{name}/metrics.jsonl")) for name in ("straight", "tiny")]
    straight, resumed = ([line["l_g_pix"] for line in one if "l_g_pix" in line] for one in lines)
    assert straight == resumed
    assert len(set(straight)) == 5


def test_loading_processes_do_not_change_the_batches(degraded_options, workdir):
    def batches(workers: int, start: int) -> list[Any]:
        options = deepcopy(degraded_options)
        options["datasets"]["train"]["num_worker_per_gpu"] = workers
        return [data for *_, data in islice(TrainingData(resolved(options)).batches(0, start), 6 - start)]

    expected = batches(0, 0)
    for workers, start in ((2, 0), (0, 4)):
        for one, other in zip(batches(workers, start), expected[start:], strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("gt", "kernel1", "kernel2", "sinc_kernel"))
    kernels = torch.cat([batch["kernel1"] for batch in expected])
    assert len(torch.unique(kernels, dim=0)) == 6


def test_two_processes_keep_a_queue_each(degraded_options, write_options, workdir):
    degraded_options["train"]["total_iter"] = 4
    del degraded_options["datasets"]["val"], degraded_options["val"]
    write_options(degraded_options)
    run = ["train", "-opt", "options.yml", "--launcher", "pytorch"]
    for arguments in (["name=straight"], ["train:total_iter=3"]):
        ends = together(2, command, *run, "--force_yml", *arguments)
        assert [end.code for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr
    own = torch.load("experiments/tiny/training_states/3.state", weights_only=True)["own"]["degraded_pairs"]
    first, second = (queue["lq"] for queue in own["queues"])
    assert first.shape == second.shape == (2, 3, 16, 16)
    assert not torch.equal(first, second)
    ends = together(2, command, *run, "--auto_resume")
    assert [end.code for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr
    assert same_networks(Path("experiments/straight"), Path("experiments/tiny"), 4)
