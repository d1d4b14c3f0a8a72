"""``basicsr quickstart``: the whole way from photos to a tested Gram-GAN, small enough for a laptop's CPU."""

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
from gramgan_plugin.evaluation.benchmark import run_benchmark
from gramgan_plugin.evaluation.measure import write_image
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
SECONDS = 300.0  # for it all; slower machines train for fewer iterations
OF_TESTS = 20.0  # what is left of them for tests and pictures
OF_LOADING = 1.15  # an iteration with its share of loading, logging and validation, by one without
L1_ITERATIONS, GRAMGAN_ITERATIONS = 1200, 500
FEW_GRAMGAN_ITERATIONS = 300  # beside all of the L1 stage's, where not all fits: it can only be as good as its start
LEAST_ITERATIONS = 100
BATCH, SMALL_BATCH = 8, 4  # of the option file, and where time is short
OF_SMALL = 0.9  # an iteration of half the batch takes a little more than half the time
LEAST_L1_ITERATIONS = 400  # and more of half the batch; with fewer the L1 stage may end below bicubic
REHEARSAL = 6  # iterations that are timed

Scores = dict[str, dict[str, float]]


def run_quickstart(
    folder: Path = FOLDER,
    say: Callable[[str], None] = print,
    l1_iterations: int | None = None,
    gramgan_iterations: int | None = None,
) -> Scores:
    """Pack the sample photos, train the small L1 stage and Gram-GAN, test both and draw the results.

    Everything goes through the option files that come with the package, as a full run does. Nothing is fetched. Some
    iterations of each stage are timed first, and both are shortened so that all fits into five minutes.

    Args:
        folder: what it all goes under; an older one is archived.
        say: told what happens, a line at a time.
        l1_iterations: length of the L1 stage; None for what fits.
        gramgan_iterations: length of Gram-GAN's; None for what fits.

    Returns:
        What results.json holds: ``bicubic``, ``l1``, ``gramgan`` -> ``psnr_y``, ``ssim_y`` and ``niqe``, each the
        mean over the held-out photos.

    Raises:
        UserError: if the folder is in use or cannot be written.
    """
    started = time.perf_counter()
    with open_run_folder(folder, keep=False, report=lambda _, line: say(line)):
        say(f"1/5  Packing sample photos into {folder}/data")
        data = prepare_sample(folder / "data")
        l1 = rehearse(_options("train_rrdb_psnr_sample", data, l1_changes(), "val"), folder / "l1")
        gramgan = rehearse(_options("train_gramgan_sample", data, gramgan_changes(), "val"), folder / "gramgan")
        say(f"     an iteration takes {l1.seconds:.2f} s in the L1 stage, {gramgan.seconds:.2f} s in Gram-GAN's ({l1})")
        planned = plan(SECONDS - OF_TESTS - (time.perf_counter() - started), l1.seconds, gramgan.seconds)
        iterations, batch = smaller_batches(planned[0]) if l1_iterations is None else (l1_iterations, BATCH)
        say(f"2/5  Training the L1 stage on {data.sub_images} sub-images, {iterations:,} iterations of batch {batch}")
        _train("train_rrdb_psnr_sample", folder / "l1", data, merge(l1_changes(iterations, batch), l1.options()))
        left = SECONDS - OF_TESTS - (time.perf_counter() - started)
        fitting = min(GRAMGAN_ITERATIONS, max(LEAST_ITERATIONS, int(left / gramgan.seconds)))
        iterations = fitting if gramgan_iterations is None else gramgan_iterations
        say(f"3/5  Training Gram-GAN from it, {iterations:,} iterations{_about_vgg()}")
        start = {"path": {"pretrain_network_g": str(folder / "l1/models/net_g_latest.pth")}}
        changes = merge(merge(gramgan_changes(iterations), gramgan.options()), start)
        _train("train_gramgan_sample", folder / "gramgan", data, changes)
        say("4/5  Testing both on the held-out photos")
        scores = {stage: _test(folder, stage, data) for stage in ("l1", "gramgan")}
        result = {"bicubic": scores["l1"]["bicubic"], **{stage: scores[stage][stage] for stage in scores}}
        say("5/5  Drawing")
        save_json(result, folder / "results.json")
        (folder / "results.md").write_text(table(result), encoding="utf-8")
        plot_losses(
            {"L1 stage": folder / "l1/metrics.jsonl", "Gram-GAN": folder / "gramgan/metrics.jsonl"},
            folder / "losses.png",
        )
        write_image(_comparison(folder, data), folder / "comparison.png")
    say(f"\n{table(result)}\n{_farewell(folder, time.perf_counter() - started)}")
    return result


@dataclass(frozen=True)
class Rehearsal:
    """What a few iterations of a stage have shown.

    Attributes:
        seconds: for an iteration, all in all.
        speed: the precision and memory layout that were found to be fastest.
    """

    seconds: float
    speed: Speed

    def __str__(self) -> str:
        return f"{self.speed.precision}{', channels-last' if self.speed.channels_last else ''}"

    def options(self) -> dict[str, Any]:
        """What the stage is trained with, so that it is not timed again."""
        return {"train": {"precision": self.speed.precision, "channels_last": self.speed.channels_last}}


def rehearse(options: dict[str, Any], folder: Path) -> Rehearsal:
    """Time some iterations of a run on random images.

    Args:
        options: the run's; it starts from random weights, and nothing is written.
        folder: the run's.
    """
    fresh = merge(options, {"path": {"pretrain_network_g": None}})  # which does not exist yet
    opt = resolve_options(fresh, is_train=True, folder=folder) | {"rank": 0, "world_size": 1}
    data, scale = opt["datasets"]["train"], int(opt["scale"])
    with torch.random.fork_rng(devices=[]):
        model = build_model(opt)
        size = (int(data["batch_size_per_gpu"]), 3, int(data["gt_size"]), int(data["gt_size"]))
        gt = torch.rand(size)
        model.feed_data({"gt": gt, "lq": torch.nn.functional.avg_pool2d(gt, scale)})
        model.optimize_parameters(1)
        seconds = []
        for iteration in range(2, 2 + REHEARSAL):
            start = time.perf_counter()
            model.optimize_parameters(iteration)
            float(model.output.sum())  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    # The fastest: what else the machine does now is soon over, and too few iterations end below bicubic.
    return Rehearsal(OF_LOADING * min(seconds), model.speed)


def plan(seconds: float, l1: float, gramgan: float) -> tuple[int, int]:
    """Iterations of the two stages: all of them, or what fits.

    Args:
        seconds: for both.
        l1: seconds for an iteration of the L1 stage.
        gramgan: and of Gram-GAN's.

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
    """Iterations and batch of the L1 stage, where so many iterations of the usual batch fit.

    In the same time more iterations of a smaller batch learn more: on the sample photos 679 of batch 8 end 0.40 dB
    above bicubic, 1,358 of batch 4 0.67 dB.

    >>> smaller_batches(1200), smaller_batches(679)
    ((1200, 8), (1222, 4))
    """
    if iterations >= 0.8 * L1_ITERATIONS:
        return iterations, BATCH
    return int(OF_SMALL * iterations * BATCH / SMALL_BATCH), SMALL_BATCH


def l1_changes(iterations: int | None = None, batch: int = BATCH) -> dict[str, Any]:
    """What differs from the option file of the small L1 stage: its length and batch, if others are asked for."""
    changes: dict[str, Any] = {}
    if iterations is not None:
        changes["train"] = {"total_iter": iterations, "scheduler": {"total_steps": iterations + 1}}
    if batch != BATCH:
        changes["datasets"] = {"train": {"batch_size_per_gpu": batch}}
    return changes


def gramgan_changes(iterations: int | None = None) -> dict[str, Any]:
    """What differs from the option file of the small Gram-GAN: its length, and the VGG term where it can be had."""
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
    """The results as people read them.

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
    """A shipped option file over the packed photos."""
    held_out = {"dataroot_gt": str(data.out / "test/GT"), "dataroot_lq": str(data.out / f"test/LQ_x{data.scale}")}
    datasets: dict[str, Any] = {phase: held_out}
    if phase == "val":
        datasets["train"] = {"dataroot_gt": str(data.gt), "dataroot_lq": str(data.lq)}
        # Few iterations want many points, for the curves and for who watches.
        changes = merge(changes, {"logger": {"use_tb_logger": False, "print_freq": 20}})
    options = merge(merge(load_options([name]), {"datasets": datasets}), changes)
    check_options(options)
    return options


def _train(name: str, folder: Path, data: Report, changes: dict[str, Any]) -> None:
    try:
        train(resolve_options(_options(name, data, changes, "val"), is_train=True, folder=folder))
    except Preempted as error:
        raise Preempted("stopped by a signal; the next quickstart begins anew") from error


def _test(folder: Path, stage: str, data: Report) -> Scores:
    """Means of bicubic and of one stage, whose pictures go to ``test_STAGE``."""
    weights = {"name": stage, "path": {"pretrain_network_g": str(folder / stage / "models/net_g_latest.pth")}}
    out = folder / f"test_{stage}"
    opt = resolve_options(_options("test_sample", data, weights, "test"), is_train=False, folder=out)
    opt |= {"rank": 0, "world_size": 1}
    with run_logging(out / "test.log"):
        results = run_benchmark(opt, out)
    keys = {"psnr": "psnr_y", "ssim": "ssim_y", "niqe": "niqe"}
    return {r.model: {keys[metric]: mean for metric, mean in r.means().items()} for r in results}


def _comparison(folder: Path, data: Report) -> np.ndarray[Any, Any]:
    """Each held-out photo as bicubic, L1 stage, Gram-GAN and GT, one below the other."""
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
        return ", without the VGG term: this machine has no VGG19 weights yet, and nothing is fetched here"
    return f", with the VGG term, from {weights}"


def _farewell(folder: Path, seconds: float) -> str:
    return f"""Done in {seconds / 60:.1f} minutes. In {folder}:
  comparison.png   the held-out photos, side by side
  losses.png       the loss curves
  results.json     the table above
  l1/, gramgan/    checkpoints (models/), logs, the options of each run

Next:
  your own photos  basicsr prepare folder PHOTOS --out datasets/mine
                   basicsr train -opt train_gramgan_x4.yml --force_yml datasets:train:dataroot_gt=datasets/mine/GT.lmdb
                     datasets:train:dataroot_lq=datasets/mine/LQ_x4.lmdb path:pretrain_network_g=ESRGAN_OR_PSNR.pth
  DIV2K            basicsr prepare div2k --hr DIV2K_train_HR --out datasets/DIV2K
                   basicsr train -opt train_rrdb_psnr_x4.yml, then basicsr train -opt train_gramgan_x4.yml"""
