"""Time PSNR-Y, SSIM-Y and NIQE of a set of images, in turns with BasicSR's functions, and compare the values.

    python benchmarks/metrics.py [FOLDER] [--rounds 3] [--batch 1] [--device cpu]

SR is GT reduced and enlarged by 4, bicubic. Without a folder, photos of scikit-image are measured. Images of one size
may be measured in batches, and as many at once as torch has threads. NIQE leaves out images with fewer than 2x2 blocks
of 96 pixels.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from torch import Tensor

from gramgan_plugin.data.images import list_images, mod_crop, read_image
from gramgan_plugin.evaluation.fidelity import psnr, ssim
from gramgan_plugin.evaluation.niqe import LEAST_SIDE, niqe
from gramgan_plugin.utils.threads import in_order, one_thread_each

SCALE = 4
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
Pair = tuple[np.ndarray, np.ndarray]  # SR and GT, (H, W, 3) uint8 BGR


def pairs(folder: Path | None) -> list[Pair]:
    """Return the images with their SR, those of one size together."""
    if folder is None:
        photos = [np.ascontiguousarray(getattr(skimage.data, name)()[..., ::-1]) for name in PHOTOS]
    else:
        photos = [image for name in list_images(folder) if (image := read_image(folder / name)) is not None]
    found = []
    for gt in sorted((mod_crop(photo, SCALE) for photo in photos), key=lambda photo: photo.shape):
        height, width = gt.shape[:2]
        small = cv2.resize(gt, (width // SCALE, height // SCALE), interpolation=cv2.INTER_CUBIC)
        found.append((cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), gt))
    return found


def upstream(metric: str, images: list[Pair]) -> list[float]:
    """Return BasicSR's values."""
    from basicsr.metrics import calculate_niqe, calculate_psnr, calculate_ssim  # once the plugin is imported

    if metric == "NIQE":
        return [float(calculate_niqe(sr, crop_border=SCALE)) for sr, _ in images]
    compute = calculate_psnr if metric == "PSNR-Y" else calculate_ssim
    return [float(compute(sr, gt, crop_border=SCALE, test_y_channel=True)) for sr, gt in images]


def ours(metric: str, images: list[Pair], batch: int, device: torch.device) -> list[float]:
    """Return our values; making tensors of the images is part of the time."""

    def measure(some: list[Pair]) -> list[float]:
        sr = tensor([pair[0] for pair in some], device)
        if metric == "NIQE":
            return niqe(sr, SCALE).tolist()
        gt = tensor([pair[1] for pair in some], device)
        return (psnr if metric == "PSNR-Y" else ssim)(sr, gt, SCALE).tolist()

    workers = torch.get_num_threads()
    with one_thread_each():
        return [value for _, values in in_order(measure, batches(images, batch), workers) for value in values]


def batches(images: list[Pair], most: int) -> Iterator[list[Pair]]:
    """Yield runs of at most ``most`` images of one size."""
    some: list[Pair] = []
    for pair in images:
        if some and (len(some) == most or some[0][0].shape != pair[0].shape):
            yield some
            some = []
        some.append(pair)
    if some:
        yield some


def tensor(images: list[np.ndarray], device: torch.device) -> Tensor:
    """Return (N, 3, H, W) uint8 RGB."""
    planes = [image.transpose(2, 0, 1)[::-1] for image in images]
    return torch.from_numpy(np.stack(planes)).contiguous().to(device)


def timed(run: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Return the seconds of one call, and what it returns."""
    begun = time.perf_counter()
    values = run()
    return time.perf_counter() - begun, values


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    images = pairs(arguments.folder)
    large = [pair for pair in images if min(pair[0].shape[:2]) - 2 * SCALE >= LEAST_SIDE]
    print(f"{len(images)} images, torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.device}")
    totals = [0.0, 0.0]
    rows = []
    for metric in ("PSNR-Y", "SSIM-Y", "NIQE"):
        some = large if metric == "NIQE" else images
        upstream(metric, some[:1])  # imports
        ours(metric, some[:1], 1, arguments.device)  # makes tables
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(arguments.rounds):
            theirs_s, theirs = timed(lambda m=metric, s=some: upstream(m, s))
            ours_s, own = timed(lambda m=metric, s=some: ours(m, s, arguments.batch, arguments.device))
            seconds[0].append(theirs_s)
            seconds[1].append(ours_s)
        medians = [statistics.median(one) for one in seconds]
        totals = [total + median for total, median in zip(totals, medians, strict=True)]
        difference = max(abs(a - b) for a, b in zip(theirs, own, strict=True) if a != b or np.isfinite(a))
        milliseconds = [1000 * median / len(some) for median in medians]
        rows.append({"metric": metric, "ratio": medians[0] / medians[1], "ours_ms": milliseconds[1], "off": difference})
        print(
            f"{metric}: BasicSR {milliseconds[0]:.1f} ms an image, ours {milliseconds[1]:.2f}: "
            f"{medians[0] / medians[1]:.1f} times as fast; largest difference {difference:.1e}"
        )
    print(f"all three: {totals[0]:.2f} s and {totals[1]:.2f} s: {totals[0] / totals[1]:.1f} times as fast")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
