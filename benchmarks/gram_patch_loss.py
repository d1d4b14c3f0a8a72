"""Measure time and memory of the patch-wise texture loss, forward and backward, against other implementations.

    (a) best-buddy   Beby-GAN's loss as its own code computes it: 3x3 patches, candidates x1, x1/2, x1/4, the distances
                     of all pairs of the batch in one matrix, from expanded squares
    (b) loop         Gram matrices, a Python loop over SR's patches
    (c) dense        Gram matrices, all pairs of the batch in one matrix
    (d) ours         GramPatchLoss, uncentred and centred
    (e) ours, pixels GramPatchLoss with Beby-GAN's options: the loss of (a)

Batch 8 of 3x192x192 crops of photos; SR is bicubic. The variants take turns, medians count. Memory is the peak of a
separate process above its memory before the call.

    python benchmarks/gram_patch_loss.py
    python benchmarks/gram_patch_loss.py --device cuda --rounds 50

On a GPU, the loss's share of a training step is the difference of two variants of train_step.py.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.functional import (
    candidate_set,
    choose_targets,
    describe_patches,
    gram_difference,
    gram_vectors,
    patch_vectors,
    random_theta,
)
from gramgan_plugin.losses import GramPatchLoss

PHOTOS = ("astronaut", "chelsea", "coffee")
BEBY: dict[str, Any] = {
    "patch_size": 3,
    "select_by": "pixel",
    "loss_on": "pixel",
    "downsample": (2, 4),
    "antialias": False,
    "affine_copies": 0,
}
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def photos(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """Return SR, a bicubic enlargement, and GT: crops of photos at different positions."""
    crops = []
    for i in range(batch):
        image = torch.from_numpy(getattr(skimage.data, PHOTOS[i % 3])()).permute(2, 0, 1)[None].float() / 255
        top, left = (min(20 + 30 * i, side - size) for side in image.shape[2:])
        crops.append(image[:, :, top : top + size, left : left + size])
    gt = torch.cat(crops)
    lq = F.interpolate(gt, scale_factor=0.25, mode="bicubic", antialias=True)
    return F.interpolate(lq, size=size, mode="bicubic").clamp(0, 1), gt


def all_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return squared distances (N, Q, K) of (N, Q, D) and (N, K, D), from a matrix product."""
    squares = x.square().sum(2, keepdim=True) + y.square().sum(2)[:, None]
    return torch.clamp(squares - 2 * torch.bmm(x, y.transpose(1, 2)), 0, float("inf"))


def best_buddy(sr: Tensor, gt: Tensor, theta: Tensor) -> Tensor:
    """Compute variant (a)."""
    x, y = patch_vectors(sr, 3), patch_vectors(gt, 3)
    copies = [F.interpolate(gt, scale_factor=1 / factor, mode="bicubic") for factor in (1, 2, 4)]
    candidates = torch.cat([patch_vectors(copy, 3) for copy in copies], dim=1)
    with torch.no_grad():
        index = (all_distances(x, candidates) + all_distances(y, candidates)).min(dim=2).indices
    return F.l1_loss(x, candidates.gather(1, index[..., None].expand(-1, -1, x.shape[2])))


def dense(sr: Tensor, gt: Tensor, theta: Tensor) -> Tensor:
    """Compute variant (c)."""
    x, y = gram_vectors(sr, 4), gram_vectors(gt, 4)
    candidates = candidate_set(gt, theta).describe("gram")
    with torch.no_grad():
        index = (all_distances(x, candidates) + all_distances(y, candidates)).min(dim=2).indices
    return gram_difference(x, candidates.gather(1, index[..., None].expand(-1, -1, x.shape[2])), 3)


def loop(sr: Tensor, gt: Tensor, theta: Tensor) -> Tensor:
    """Compute variant (b)."""
    x, y = gram_vectors(sr, 4), gram_vectors(gt, 4)
    candidates = candidate_set(gt, theta).describe("gram")
    chosen = []
    for n in range(len(x)):
        for i in range(x.shape[1]):
            with torch.no_grad():
                distance = (candidates[n] - x[n, i]).square().sum(1) + (candidates[n] - y[n, i]).square().sum(1)
                chosen.append(candidates[n, distance.argmin()])
    return gram_difference(x, torch.stack(chosen).view_as(x), 3)


def ours(**options: Any) -> Loss:
    """Return variant (d) or (e)."""
    loss = GramPatchLoss(**options)
    return lambda sr, gt, theta: loss(sr, gt, theta[:, : loss.options.affine_copies])


LOSSES: dict[str, Loss] = {
    "(a) best-buddy": best_buddy,
    "(b) loop": loop,
    "(c) dense": dense,
    "(d) ours, uncentred": ours(),
    "(d) ours, centred": ours(center=True),
    "(e) ours, pixels": ours(**BEBY),
}


def step(name: str, sr: Tensor, gt: Tensor) -> Callable[[], object]:
    """Return a function that runs one forward and backward."""
    theta = random_theta(len(gt), 1, 0.003, seed=(0,)).to(gt.device)
    sr = sr.requires_grad_()
    return lambda: torch.autograd.grad(LOSSES[name](sr, gt, theta), sr)


def timed(function: Callable[[], object], device: str) -> float:
    """Return the seconds of a call."""
    if device == "cuda":
        torch.cuda.synchronize()
    mark = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - mark


def extra_memory(name: str, arguments: argparse.Namespace) -> float:
    """Return the peak MB of a call above the memory before it; run it in a separate process."""
    device = arguments.device
    small = step(name, *(x.to(device) for x in photos(1, 96)))
    small()  # loads the libraries
    call = step(name, *(x.to(device) for x in photos(arguments.batch, arguments.size)))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    ctypes.CDLL(None).malloc_trim(0)  # freed memory must not be reused by the call
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    call()
    return (_status("VmHWM") - before) / 1e3


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key)))


def in_a_process(name: str, arguments: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--child", name]
    for option in ("batch", "size", "device", "threads"):
        command += [f"--{option}", str(getattr(arguments, option))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def exactness(gt: Tensor, sr: Tensor) -> dict[str, float]:
    """Return the share of patches of the first image with the nearest candidate, by all differences in float64."""
    shares = {}
    for name, options in (("uncentred", {}), ("centred", {"center": True}), ("pixels", BEBY)):
        loss = GramPatchLoss(**options)
        theta = random_theta(1, loss.options.affine_copies, 0.003, seed=(0,))
        by, center = loss.options.select_by, loss.options.center
        targets = choose_targets(sr[:1], gt[:1], loss.options, theta=theta)
        vectors = targets.candidates.describe(by, True, center)
        x = describe_patches(sr[:1], loss.options.patch_size, by, center=center)
        query = ((x + vectors[:, : x.shape[1]]) / 2)[0].double()
        distance = torch.cdist(query, vectors[0].double(), compute_mode="donot_use_mm_for_euclid_dist")
        found = distance.gather(1, targets.index[0, :, None])[:, 0]
        shares[name] = float((found <= distance.amin(dim=1) * (1 + 1e-12)).double().mean())
    return shares


def floor(arguments: argparse.Namespace) -> str:
    """Return the least memory traffic of (d), and its time at the speed of a copy."""
    pixels = arguments.batch * 3 * arguments.size**2 * 4  # bytes of an image in float32
    patches = arguments.batch * (arguments.size // 4) ** 2
    # SR and GT read, the copies written and read, SR's gradient written with SR read again; vectors of 6 numbers.
    moved = (2 + 2 * 1.25 + 2) * pixels + patches * 6 * 4 * (2 * (1 + 2.25) + 4)
    block = torch.empty(2**28 if arguments.device == "cuda" else 2**26, device=arguments.device)
    target = torch.empty_like(block)
    seconds = min(timed(lambda: target.copy_(block), arguments.device) for _ in range(5))
    speed = 2 * block.numel() * 4 / seconds
    distances = patches * 2.25 * (arguments.size // 4) ** 2
    return (
        f"(d) moves at least {moved / 1e6:.0f} MB, {moved / speed * 1e3:.2f} ms at a copy's {speed / 1e9:.0f} GB/s; "
        f"measuring all {distances / 1e6:.0f} million distances takes {distances * 17 / 1e9:.1f} G operations"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, print and return the figures."""
    device = arguments.device
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}; batch {arguments.batch} of 3x{arguments.size}x{arguments.size}; torch {torch.__version__}")
    sr, gt = (x.to(device) for x in photos(arguments.batch, arguments.size))
    names = [name for name in LOSSES if not arguments.only or any(word in name for word in arguments.only)]
    steps = {name: step(name, sr.clone(), gt) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for call in steps.values():
        call()
    for _ in range(arguments.rounds):
        for name, call in steps.items():
            seconds[name].append(timed(call, device))
    memory = {name: in_a_process(name, arguments) for name in steps}
    first = names[0]
    print(f"{'':22s}{'ms':>9s}{'fastest':>9s}{'MB':>8s}{'times as fast':>15s}{'1/memory':>10s}")
    figures: dict[str, Any] = {}
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio, saving = statistics.median(seconds[first]) / median, memory[first] / max(memory[name], 0.1)
        figures[name] = {"seconds": median, "megabytes": memory[name], "ratio": ratio, "memory_ratio": saving}
        print(f"{name:22s}{median * 1e3:9.1f}{min(values) * 1e3:9.1f}{memory[name]:8.0f}{ratio:15.1f}{saving:10.1f}")
    figures["exact"] = exactness(*(x.detach().cpu() for x in (gt, sr)))
    print("patches with a nearest candidate:", ", ".join(f"{k} {v:.2%}" for k, v in figures["exact"].items()))
    print(floor(arguments))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=192, help="side of the crops")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="variants whose name holds one of these words")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        print(extra_memory(arguments.child, arguments))
        return
    figures = run(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
