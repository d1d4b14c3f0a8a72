"""``basicsr quickstart``: from photos to a tested Gram-GAN, small enough for a laptop's CPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gramgan_plugin.checkpoints.vgg19 import find_vgg19_weights
from gramgan_plugin.config.check import check_options
from gramgan_plugin.config.load import load_options, merge
from gramgan_plugin.config.resolve import resolve_options
from gramgan_plugin.errors import Preempted
from gramgan_plugin.evaluation.measure import write_image
from gramgan_plugin.evaluation.option_sets import measure_option_sets
from gramgan_plugin.evaluation.pictures import side_by_side
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

FOLDER = Path("experiments/quickstart")
SECONDS = 300.0  # time limit in all; slower machines train for fewer iterations
TEST_SECONDS = 20.0  # of these, for tests and pictures
LOADING_FACTOR = 1.15  # an iteration takes so many times longer with loading, logging and validation
L1_ITERATIONS, GRAMGAN_ITERATIONS = 1200, 500
# If not all iterations fit, the stages are shortened in the ratio 1200 : 300, since Gram-GAN needs a good L1 stage.
FEW_GRAMGAN_ITERATIONS = 300
LEAST_ITERATIONS = 100
BATCH, SMALL_BATCH = 8, 4  # as in the option file, and if time is short
SMALL_BATCH_FACTOR = 0.9  # an iteration with half the batch takes a little more than half the time
LEAST_L1_ITERATIONS = 400  # of batch 8; with fewer the L1 stage may end below bicubic
TIMED_ITERATIONS = 6

Scores = dict[str, dict[str, float]]


def run_quickstart(
    folder: Path = FOLDER,
    log: Callable[[str], None] = print,
    l1_iterations: int | None = None,
    gramgan_iterations: int | None = None,
) -> Scores:
    """Pack the sample photos, train the small L1 stage and Gram-GAN, test both and draw the results.

    It uses the option files in the package, as a full run does. Nothing is downloaded. Some iterations of each stage
    are timed first, and both stages are shortened so that everything fits into five minutes.

    Args:
        folder: folder of all results; an existing one is archived.
        log: called with each line of progress.
        l1_iterations: length of the L1 stage; None: as many as fit.
        gramgan_iterations: length of the Gram-GAN stage; None: as many as fit.

    Returns:
        The content of results.json: ``bicubic``, ``l1``, ``gramgan`` -> ``psnr_y``, ``ssim_y`` and ``niqe``, each the
        mean over the held-out photos.

    Raises:
        UserError: if the folder is in use or cannot be written.
    """
    started = time.perf_counter()
    with open_run_folder(folder, keep=False, report=lambda _, line: log(line)):
        log(f"1/5  Packing sample photos into {folder}/data")
        data = prepare_sample(folder / "data")
        l1 = time_training(_options("train_rrdb_psnr_sample", data, l1_changes(), "val"), folder / "l1")
        gramgan = time_training(_options("train_gramgan_sample", data, gramgan_changes(), "val"), folder / "gramgan")
        log(f"     an iteration takes {l1.seconds:.2f} s in the L1 stage, {gramgan.seconds:.2f} s in Gram-GAN's ({l1})")
        planned = plan(SECONDS - TEST_SECONDS - (time.perf_counter() - started), l1.seconds, gramgan.seconds)
        iterations, batch = smaller_batches(planned[0]) if l1_iterations is None else (l1_iterations, BATCH)
        log(f"2/5  Training the L1 stage on {data.sub_images} sub-images, {iterations:,} iterations of batch {batch}")
        _train("train_rrdb_psnr_sample", folder / "l1", data, merge(l1_changes(iterations, batch), l1.options()))
        left = SECONDS - TEST_SECONDS - (time.perf_counter() - started)
        fitting = min(GRAMGAN_ITERATIONS, max(LEAST_ITERATIONS, int(left / gramgan.seconds)))
        iterations = fitting if gramgan_iterations is None else gramgan_iterations
        log(f"3/5  Training Gram-GAN from it, {iterations:,} iterations{_about_vgg()}")
        start = {"path": {"pretrain_network_g": str(folder / "l1/models/net_g_latest.pth")}}
        changes = merge(merge(gramgan_changes(iterations), gramgan.options()), start)
        _train("train_gramgan_sample", folder / "gramgan", data, changes)
        log("4/5  Testing both on the held-out photos")
        scores = {stage: _test(folder, stage, data) for stage in ("l1", "gramgan")}
        result = {"bicubic": scores["l1"]["bicubic"], **{stage: scores[stage][stage] for stage in scores}}
        log("5/5  Drawing")
        save_json(result, folder / "results.json")
        (folder / "results.md").write_text(table(result), encoding="utf-8")
        plot_losses(
            {"L1 stage": folder / "l1/metrics.jsonl", "Gram-GAN": folder / "gramgan/metrics.jsonl"},
            folder / "losses.png",
        )
        write_image(_comparison(folder, data), folder / "comparison.png")
    log(f"\n{table(result)}\n{_summary(folder, time.perf_counter() - started)}")
    return result


@dataclass(frozen=True)
class Timing:
    """The measured speed of a stage.

    Attributes:
        seconds: time for an iteration, with loading, logging and validation.
        speed: the fastest precision and memory layout.
    """

    seconds: float
    speed: Speed

    def __str__(self) -> str:
        return f"{self.speed.precision}{', channels-last' if self.speed.channels_last else ''}"

    def options(self) -> dict[str, Any]:
        """Return the options with which the stage is trained, so that it is not timed again."""
        return {"train": {"precision": self.speed.precision, "channels_last": self.speed.channels_last}}


def time_training(options: dict[str, Any], folder: Path) -> Timing:
    """Time some iterations of a run on random images.

    Args:
        options: the run's options; it starts from random weights, and nothing is written.
        folder: the run's folder.
    """
    fresh = merge(options, {"path": {"pretrain_network_g": None}})  # the file does not exist yet
    opt = resolve_options(fresh, is_train=True, folder=folder) | {"rank": 0, "world_size": 1}
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
    # The fastest: other load on the machine may end soon, and with too few iterations the result is below bicubic.
    return Timing(LOADING_FACTOR * min(seconds), model.speed)


def plan(seconds: float, l1: float, gramgan: float) -> tuple[int, int]:
    """Return the numbers of iterations of the two stages: all, or as many as fit.

    Args:
        seconds: time limit for both stages.
        l1: seconds for an iteration of the L1 stage.
        gramgan: seconds for an iteration of the Gram-GAN stage.

    >>> plan(260, 0.05, 0.13), plan(260, 0.2, 0.6)
    ((1200, 500), (742, 186))
    """
    if L1_ITERATIONS * l1 + GRAMGAN_ITERATIONS * gramgan <= seconds:
        return L1_ITERATIONS, GRAMGAN_ITERATIONS
    share = max(0.0, seconds) / (L1_ITERATIONS * l1 + FEW_GRAMGAN_ITERATIONS * gramgan)
    first = min(L1_ITERATIONS, int(L1_ITERATIONS * share))
    fitting = int((seconds - first * l1) / gramgan)
    return max(LEAST_L1_ITERATIONS, first), min(GRAMGAN_ITERATIONS, max(LEAST_ITERATIONS, fitting))


def smaller_batches(iterations: int) -> tuple[int, int]:
    """Return iterations and batch size of the L1 stage, if so many iterations of the usual batch fit.

    In the same time, more iterations with a smaller batch learn more: on the sample photos 679 with batch 8 end
    0.40 dB above bicubic, 1,358 with batch 4 end 0.67 dB above.

    >>> smaller_batches(1200), smaller_batches(679)
    ((1200, 8), (1222, 4))
    """
    if iterations >= 0.8 * L1_ITERATIONS:
        return iterations, BATCH
    return int(SMALL_BATCH_FACTOR * iterations * BATCH / SMALL_BATCH), SMALL_BATCH


def l1_changes(iterations: int | None = None, batch: int = BATCH) -> dict[str, Any]:
    """Return the changes to the option file of the small L1 stage: its length and batch size, if given."""
    changes: dict[str, Any] = {}
    if iterations is not None:
        changes["train"] = {"total_iter": iterations, "scheduler": {"total_steps": iterations + 1}}
    if batch != BATCH:
        changes["datasets"] = {"train": {"batch_size_per_gpu": batch}}
    return changes


def gramgan_changes(iterations: int | None = None) -> dict[str, Any]:
    """Return the changes to the option file of the small Gram-GAN: its length, and the VGG term if it has weights."""
    weights = find_vgg19_weights()
    iterations = GRAMGAN_ITERATIONS if iterations is None else iterations
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
    return {"train": train}


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


def _options(name: str, data: Report, changes: dict[str, Any], phase: str) -> dict[str, Any]:
    """Return the options of a shipped file for the packed photos."""
    held_out = {"dataroot_gt": str(data.out / "test/GT"), "dataroot_lq": str(data.out / f"test/LQ_x{data.scale}")}
    datasets: dict[str, Any] = {phase: held_out}
    if phase == "val":
        datasets["train"] = {"dataroot_gt": str(data.gt), "dataroot_lq": str(data.lq)}
        # A short run needs frequent log lines, for the curves and for the user.
        changes = merge(changes, {"logger": {"use_tb_logger": False, "print_freq": 20}})
    options = merge(merge(load_options([name]), {"datasets": datasets}), changes)
    check_options(options)
    return options


def _train(name: str, folder: Path, data: Report, changes: dict[str, Any]) -> None:
    try:
        train(resolve_options(_options(name, data, changes, "val"), is_train=True, folder=folder))
    except Preempted as error:
        raise Preempted("stopped by a signal; the next quickstart starts from the beginning") from error


def _test(folder: Path, stage: str, data: Report) -> Scores:
    """Test one stage in ``test_STAGE``, and return the means of it and of bicubic."""
    weights = {"name": stage, "path": {"pretrain_network_g": str(folder / stage / "models/net_g_latest.pth")}}
    out = folder / f"test_{stage}"
    opt = resolve_options(_options("test_sample", data, weights, "test"), is_train=False, folder=out)
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
            "L1 stage": folder / f"test_l1/visualization/sample_test/{gt.stem}_l1.png",
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
  l1/, gramgan/    checkpoints (models/), logs, the options of each run

Next:
  your own photos  basicsr prepare folder PHOTOS --out datasets/mine
                   basicsr train -opt train_gramgan_x4.yml --force_yml datasets:train:dataroot_gt=datasets/mine/GT.lmdb
                     datasets:train:dataroot_lq=datasets/mine/LQ_x4.lmdb
                     path:pretrain_network_g=ESRGAN_PSNR_x4 path:param_key_g=~
  DIV2K            basicsr prepare div2k --hr DIV2K_train_HR --out datasets/DIV2K
                   basicsr train -opt train_rrdb_psnr_x4.yml, then basicsr train -opt train_gramgan_x4.yml"""
