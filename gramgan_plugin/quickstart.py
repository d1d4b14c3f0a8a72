"""``basicsr quickstart``: from photos to a tested Gram-GAN, small enough for a laptop's CPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.vgg19 import find_vgg19_weights
from gramgan_plugin.checkpoints.weights_cache import ensure
from gramgan_plugin.config.check import check_options
from gramgan_plugin.config.load import load_options, merge
from gramgan_plugin.config.resolve import resolve_options
from gramgan_plugin.errors import Preempted
from gramgan_plugin.evaluation.measure import write_image
from gramgan_plugin.evaluation.option_sets import measure_option_sets
from gramgan_plugin.losses.vgg_perceptual_loss import LAYER_WEIGHTS
from gramgan_plugin.models.build import build_model
from gramgan_plugin.models.measured_speed import Speed
from gramgan_plugin.prepare.pack import Report
from gramgan_plugin.prepare.sample import prepare_sample
from gramgan_plugin.training.logs import run_logging
from gramgan_plugin.training.loop import train
from gramgan_plugin.training.plots import plot_losses
from gramgan_plugin.training.run_folder import open_run_folder
from gramgan_plugin.utils.io import save_json
from gramgan_plugin.utils.pictures import side_by_side

FOLDER = Path("experiments/quickstart")
SECONDS = 300.0  # time limit in all; slower machines train for fewer iterations
TEST_SECONDS = 20.0  # of these, for tests and pictures
LOADING_FACTOR = 1.15  # an iteration takes so many times longer with loading, logging and validation
START = "4x-RRDB-Lite"
MOST_ITERATIONS, LEAST_ITERATIONS = 600, 100
TIMED_ITERATIONS = 6

Scores = dict[str, dict[str, float]]


def run_quickstart(folder: Path = FOLDER, log: Callable[[str], None] = print, iterations: int | None = None) -> Scores:
    """Pack the sample photos, train a small Gram-GAN from the package's L1 stage, test both and draw the results.

    It uses the option files in the package, as a full run does. Nothing is downloaded. Some iterations are timed first,
    and as many follow as fit into five minutes.

    Args:
        folder: folder of all results; an existing one is archived.
        log: called with each line of progress.
        iterations: length of the training; None: as many as fit.

    Returns:
        The content of results.json: ``bicubic``, ``l1``, ``gramgan`` -> ``psnr_y``, ``ssim_y`` and ``niqe``, each the
        mean over the held-out photos.

    Raises:
        UserError: if the folder is in use or cannot be written.
    """
    started = time.perf_counter()
    with open_run_folder(folder, keep=False, report=lambda _, line: log(line)):
        start = str(ensure(WEIGHTS[START]))  # not a file of that name in the working directory
        log(f"1/4  Packing sample photos into {folder}/data")
        data = prepare_sample(folder / "data")
        timing = time_training(_options("train_gramgan_sample", data, changes(start), "val"), folder / "gramgan")
        log(f"     an iteration takes {timing.seconds:.2f} s ({timing})")
        left = SECONDS - TEST_SECONDS - (time.perf_counter() - started)
        iterations = fitting(left, timing.seconds) if iterations is None else iterations
        log(
            f"2/4  Training Gram-GAN from {START} on {data.sub_images} sub-images, "
            f"{iterations:,} iterations{_about_vgg()}"
        )
        options = _options("train_gramgan_sample", data, merge(changes(start, iterations), timing.options()), "val")
        _train(options, folder / "gramgan")
        log("3/4  Testing both on the held-out photos")
        starts = {"l1": start, "gramgan": str(folder / "gramgan/models/net_g_latest.pth")}
        scores = {stage: _test(folder, stage, weights, data) for stage, weights in starts.items()}
        result = {"bicubic": scores["l1"]["bicubic"], **{stage: scores[stage][stage] for stage in scores}}
        log("4/4  Drawing")
        save_json(result, folder / "results.json")
        (folder / "results.md").write_text(table(result), encoding="utf-8")
        plot_losses({"Gram-GAN": folder / "gramgan/metrics.jsonl"}, folder / "losses.png")
        write_image(_comparison(folder, data), folder / "comparison.png")
    log(f"\n{table(result)}\n{_summary(folder, time.perf_counter() - started)}")
    return result


@dataclass(frozen=True)
class Timing:
    """The measured speed of a training.

    Attributes:
        seconds: time for an iteration, with loading, logging and validation.
        speed: the fastest precision and memory layout.
    """

    seconds: float
    speed: Speed

    def __str__(self) -> str:
        return f"{self.speed.precision}{', channels-last' if self.speed.channels_last else ''}"

    def options(self) -> dict[str, Any]:
        """Return the options to train with, so that it is not timed again."""
        return {"train": {"precision": self.speed.precision, "channels_last": self.speed.channels_last}}


def time_training(options: dict[str, Any], folder: Path) -> Timing:
    """Time some iterations of a run on random images.

    Args:
        options: the run's options; nothing is written.
        folder: the run's folder.
    """
    opt = resolve_options(options, is_train=True, folder=folder) | {"rank": 0, "world_size": 1}
    data, scale = opt["datasets"]["train"], int(opt["scale"])
    with torch.random.fork_rng(devices=[]):
        model = build_model(opt)
        size = (int(data["batch_size_per_gpu"]), 3, int(data["gt_size"]), int(data["gt_size"]))
        gt = torch.rand(size)
        model.feed_data({"gt": gt, "lq": torch.nn.functional.avg_pool2d(gt, scale)})
        model.optimize_parameters(1)
        seconds = []
        for iteration in range(2, 2 + TIMED_ITERATIONS):
            start = time.perf_counter()
            model.optimize_parameters(iteration)
            float(model.output.sum())  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    # The fastest: other load on the machine may end soon.
    return Timing(LOADING_FACTOR * min(seconds), model.speed)


def fitting(seconds: float, each: float) -> int:
    """Return how many iterations fit.

    Args:
        seconds: the time that is left.
        each: seconds for an iteration.

    >>> fitting(260, 0.2), fitting(260, 1.0), fitting(260, 60.0)
    (600, 260, 100)
    """
    return min(MOST_ITERATIONS, max(LEAST_ITERATIONS, int(seconds / each)))


def changes(start: str, iterations: int = MOST_ITERATIONS) -> dict[str, Any]:
    """Return the changes to the option file, and the VGG term if this machine has weights for it.

    Args:
        start: the file of weights to start from.
        iterations: length of the training.
    """
    weights = find_vgg19_weights()
    train: dict[str, Any] = {
        "total_iter": iterations,
        "scheduler": {"period": max(iterations, 2), "warmup_iter": min(20, iterations // 2)},
    }
    if weights is not None:
        train["perceptual_opt"] = {
            "type": "VGGPerceptualLoss",
            "layer_weights": dict(LAYER_WEIGHTS["gramgan"]),
            "vgg_weights": str(weights),
        }
    return {"train": train, "path": {"pretrain_network_g": start}}


def table(result: Scores) -> str:
    """Return the results as a text table.

    >>> print(table({"bicubic": {"psnr_y": 27.0, "ssim_y": 0.8, "niqe": 7.4}}))
    model     PSNR-Y   SSIM-Y    NIQE (lower is better)
    bicubic    27.00   0.8000    7.40
    <BLANKLINE>
    """
    lines = [f"{'model':8}{'PSNR-Y':>8}{'SSIM-Y':>9}    NIQE (lower is better)"]
    for name, row in result.items():
        lines.append(f"{name:8}{row['psnr_y']:8.2f}{row['ssim_y']:9.4f}{row['niqe']:8.2f}")
    return "\n".join(lines) + "\n"


def _options(name: str, data: Report, more: dict[str, Any], phase: str) -> dict[str, Any]:
    """Return the options of a shipped file for the packed photos."""
    held_out = {"dataroot_gt": str(data.out / "test/GT"), "dataroot_lq": str(data.out / f"test/LQ_x{data.scale}")}
    datasets: dict[str, Any] = {phase: held_out}
    if phase == "val":
        datasets["train"] = {"dataroot_gt": str(data.gt), "dataroot_lq": str(data.lq)}
        # A short run needs frequent log lines, for the curves and for the user.
        more = merge(more, {"logger": {"use_tb_logger": False, "print_freq": 20}})
    options = merge(merge(load_options([name]), {"datasets": datasets}), more)
    check_options(options)
    return options


def _train(options: dict[str, Any], folder: Path) -> None:
    try:
        train(resolve_options(options, is_train=True, folder=folder))
    except Preempted as error:
        raise Preempted("stopped by a signal; the next quickstart starts from the beginning") from error


def _test(folder: Path, stage: str, weights: str, data: Report) -> Scores:
    """Test one stage in ``test_STAGE``, and return the means of it and of bicubic."""
    tested = {"name": stage, "path": {"pretrain_network_g": weights}}
    out = folder / f"test_{stage}"
    opt = resolve_options(_options("test_sample", data, tested, "test"), is_train=False, folder=out)
    opt |= {"rank": 0, "world_size": 1}
    with run_logging(out / "test.log"):
        results = measure_option_sets(opt, out)
    keys = {"psnr": "psnr_y", "ssim": "ssim_y", "niqe": "niqe"}
    return {r.model: {keys[metric]: mean for metric, mean in r.means().items()} for r in results}


def _comparison(folder: Path, data: Report) -> np.ndarray[Any, Any]:
    """Draw a row for each held-out photo: bicubic, L1 stage, Gram-GAN and GT."""
    rows = []
    for gt in sorted((data.out / "test/GT").iterdir()):
        pictures = {
            "LQ bicubic": folder / f"test_l1/visualization/sample_test/{gt.stem}_bicubic.png",
            START: folder / f"test_l1/visualization/sample_test/{gt.stem}_l1.png",
            "Gram-GAN": folder / f"test_gramgan/visualization/sample_test/{gt.stem}_gramgan.png",
            "GT": gt,
        }
        read = {label: np.asarray(cv2.imread(str(path))) for label, path in pictures.items()}
        rows.append(side_by_side(read, crop=128))
    return np.vstack(rows)


def _about_vgg() -> str:
    weights = find_vgg19_weights()
    if weights is None:
        return ", without the VGG term: this machine has no VGG19 weights yet, and nothing is downloaded here"
    return f", with the VGG term, from {weights}"


def _summary(folder: Path, seconds: float) -> str:
    return f"""Done in {seconds / 60:.1f} minutes. In {folder}:
  comparison.png   the held-out photos, side by side
  losses.png       the loss curves
  results.json     the table above
  gramgan/         checkpoints (models/), logs, the options of the run

Next:
  your own photos  basicsr prepare folder PHOTOS --out datasets/mine
                   basicsr train -opt train_gramgan_x4.yml --force_yml datasets:train:dataroot_gt=datasets/mine/GT.lmdb
                     datasets:train:dataroot_lq=datasets/mine/LQ_x4.lmdb
                     path:pretrain_network_g=ESRGAN_PSNR_x4 path:param_key_g=~
  DIV2K            basicsr prepare div2k --hr DIV2K_train_HR --out datasets/DIV2K
                   basicsr train -opt train_rrdb_psnr_x4.yml, then basicsr train -opt train_gramgan_x4.yml"""
