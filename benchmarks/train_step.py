"""Measure a training step: BasicSR's own ESRGANModel, and GramGANModel with ESRGAN's and Gram-GAN's losses.

Same networks (RRDBNet 64/23 and the VGG-style discriminator of 256 px), same batch, same random VGG19 weights, in
BasicSR's folder for them. The variants take turns, so that other load on the machine affects all of them; medians
count. A step is `feed_data` and `optimize_parameters`, with the batch in main memory as each loader returns it: floats
for BasicSR, bytes for ours.

    python benchmarks/train_step.py                                  # 2 CPU cores: about 7 minutes
    python benchmarks/train_step.py --device cuda --batch 8 --rounds 30 --flops
"""

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from gramgan_plugin.models.build import build_model

Step = Callable[[], None]

WEIGHTS = Path("experiments/pretrained_models/vgg19-dcbb9e9d.pth")


def options(arguments: argparse.Namespace, model_type: str, train: dict[str, Any], network_d: str) -> dict[str, Any]:
    """Return the options of a run for either model."""
    adam = {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
    return {
        "name": model_type,
        "model_type": model_type,
        "scale": 4,
        "num_gpu": 1 if arguments.device == "cuda" else 0,
        "dist": False,
        "is_train": True,
        "rank": 0,
        "world_size": 1,
        "manual_seed": 0,
        "network_g": {
            "type": "RRDBNet",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": arguments.features,
            "num_block": arguments.blocks,
            "num_grow_ch": arguments.features // 2,
        },
        "network_d": {"type": network_d, "num_in_ch": 3, "num_feat": 64, "input_size": arguments.size},
        "path": {"models": ".", "training_states": "."},
        "logger": {"print_freq": 10**9},
        "train": {
            "ema_decay": 0.999,
            "optim_g": dict(adam),
            "optim_d": dict(adam),
            "scheduler": {"type": "MultiStepLR", "milestones": [10**6], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1e-2, "reduction": "mean"},
            **train,
        },
    }


def variants(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the options of each variant by name, the baseline first."""
    upstream = {
        "perceptual_opt": {
            "type": "PerceptualLoss",
            "layer_weights": {"conv5_4": 1},
            "vgg_type": "vgg19",
            "use_input_norm": True,
            "range_norm": False,
            "perceptual_weight": 1.0,
            "style_weight": 0,
            "criterion": "l1",
        },
        "gan_opt": {
            "type": "GANLoss",
            "gan_type": "vanilla",
            "real_label_val": 1.0,
            "fake_label_val": 0.0,
            "loss_weight": 5e-3,
        },
        "net_d_iters": 1,
        "net_d_init_iters": 0,
    }
    vgg = {"perceptual_opt": {"type": "VGGPerceptualLoss", "layer_weights": {"conv5_4": 1.0}}}
    esrgan = {**vgg, "gan_opt": upstream["gan_opt"]}
    gramgan = {
        **vgg,
        "gram_patch_opt": {"type": "GramPatchLoss"},
        "disc_perceptual_opt": {"type": "DiscPerceptualLoss", "taps": ["conv2_0", "conv5_0"]},
        "gan_opt": {"type": "MaskedRaGANLoss"},
    }
    layouts = {
        "fp32": {"precision": "fp32"},
        "fp32, channels-last": {"precision": "fp32", "channels_last": True},
        "bf16, channels-last": {"precision": "bf16", "channels_last": True},
    }
    if arguments.compile:
        layouts["bf16, channels-last, compiled"] = {**layouts["bf16, channels-last"], "compile": True}
    ours = "GramGANDiscriminator"
    found = {}
    if arguments.size == 256:  # the size at which BasicSR's discriminator has twelve convolutions like ours
        found["BasicSR ESRGANModel"] = options(arguments, "ESRGANModel", upstream, "VGGStyleDiscriminator")
    for losses, block in (("ESRGAN", esrgan), ("Gram-GAN", gramgan)):
        for name, layout in layouts.items():
            found[f"{losses}, {name}"] = options(arguments, "GramGANModel", {**block, **layout}, ours)
    wanted = arguments.only or list(found)
    return {name: found[name] for name in found if any(word in name for word in wanted)}


def build(opt: dict[str, Any], arguments: argparse.Namespace) -> Step:
    """Return a function that takes one step."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    gt = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    lq = gt[..., ::4, ::4].contiguous()
    if opt["model_type"] == "GramGANModel":
        model: Any = build_model(opt)
    else:
        from basicsr.models import build_model as build_upstream

        # BasicSR's class itself, without the fixes that our loop adds.
        model = build_upstream(deepcopy(opt))
        gt, lq = gt.float() / 255, lq.float() / 255
    if arguments.device == "cuda":
        gt, lq = gt.pin_memory(), lq.pin_memory()
    iteration = 0

    def step() -> None:
        nonlocal iteration
        iteration += 1
        model.feed_data({"lq": lq, "gt": gt})
        model.optimize_parameters(iteration)

    return step


def timed(step: Step, device: str) -> float:
    """Return the seconds of a step."""
    if device == "cuda":
        torch.cuda.synchronize()
    mark = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - mark


def peak_memory(name: str, step: Step, arguments: argparse.Namespace) -> float:
    """Return the peak GiB of a step above what stays; on a CPU, the peak of a separate process."""
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    command = [sys.executable, __file__, "--child", name]
    for option in ("size", "batch", "features", "blocks"):
        command += [f"--{option}", str(getattr(arguments, option))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def child(arguments: argparse.Namespace) -> None:
    """Take two steps of one variant, and print the peak GiB of this process."""
    torch.set_num_threads(2)
    step = build(variants(arguments)[arguments.child], arguments)
    for _ in range(2):
        step()
    # Not getrusage: its maximum includes that of the parent process.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20)


def matmul_peak(device: str, dtype: torch.dtype, side: int) -> float:
    """Return the operations per second of a large matrix product."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        mark = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - mark))
    return best


def profile(step: Step, device: str) -> str:
    """Return a table of the slowest operations of a step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as measured:
        step()
        if device == "cuda":
            torch.cuda.synchronize()
    key = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    table: str = measured.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=60)
    return table


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, print and return the figures."""
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    crop = f"batch {arguments.batch}, GT {arguments.size} px"
    print(f"{device}; RRDBNet {arguments.features}/{arguments.blocks}, {crop}; torch {torch.__version__}")
    WEIGHTS.parent.mkdir(parents=True)
    torch.save(torchvision.models.vgg19().state_dict(), WEIGHTS)
    steps = {name: build(opt, arguments) for name, opt in variants(arguments).items()}
    for name, step in steps.items():
        mark = time.perf_counter()
        for _ in range(arguments.warmup):
            step()
        print(f"  warmed up: {name} ({time.perf_counter() - mark:.1f} s)", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step, arguments.device))
    memory = {name: peak_memory(name, step, arguments) for name, step in steps.items()}
    peak = matmul_peak(arguments.device, torch.bfloat16, 8192 if arguments.device == "cuda" else 4096)
    figures: dict[str, Any] = {}
    baseline = statistics.median(next(iter(seconds.values())))
    print(f"{'':40s} {'s/step':>8s} {'images/s':>9s} {'GiB':>6s} {'ratio':>6s}")
    for name, values in seconds.items():
        median = statistics.median(values)
        line = f"{name:40s} {median:8.3f} {arguments.batch / median:9.2f} {memory[name]:6.2f} {baseline / median:6.2f}"
        figures[name] = {"seconds": median, "memory": memory[name], "ratio": baseline / median}
        if arguments.flops:
            with FlopCounterMode(display=False) as counter, contextlib.redirect_stdout(io.StringIO()):
                steps[name]()
            share = counter.get_total_flops() / median / peak
            figures[name]["share_of_bf16_peak"] = share
            line += f"  {counter.get_total_flops() / 1e12:.2f} TFLOP a step, {share:.0%} of the bf16 peak"
        print(line)
    print(f"measured bf16 peak of a matrix product: {peak / 1e12:.2f} TFLOP/s")
    for losses in ("fp32", "fp32, channels-last", "bf16, channels-last", "bf16, channels-last, compiled"):
        pair = [figures.get(f"{system}, {losses}") for system in ("Gram-GAN", "ESRGAN")]
        if all(pair):
            print(f"Gram-GAN's step / ESRGAN's, {losses}: {pair[0]['seconds'] / pair[1]['seconds']:.3f}")
    if arguments.profile:
        for name, step in steps.items():
            print(name, profile(step, arguments.device), sep="\n")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, default=256, help="side of GT; at other sizes than 256 without BasicSR's")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=23)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also with train.compile")
    parser.add_argument("--only", nargs="+", help="variants whose name holds one of these words")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--flops", action="store_true", help="also the share of the machine's bf16 peak")
    parser.add_argument("--profile", action="store_true", help="also the operations that take most of a step")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    target = arguments.json.resolve() if arguments.json else None
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        figures = run(arguments)
    if target is not None:
        target.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
