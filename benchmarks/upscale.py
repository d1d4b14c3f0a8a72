"""Time upscaling: BasicSR's float32 call is 1; the others take turns with it in one run.

    python benchmarks/upscale.py [--network rrdb|srvgg] [--sides 128 512] [--rounds 3] [--blocks 23]
    python benchmarks/upscale.py --device cuda --sides 256 512 1024
    python benchmarks/upscale.py --memory 2048 1152

The networks have random weights of a size that makes images of images, so that results can be compared: each method's
PSNR to BasicSR's result is printed beside its time. The machine's peak is the rate of a large matrix product, float32
on a CPU, float16 on a GPU. There each call begins and ends with an image in host memory, and the second row is what
Real-ESRGAN's upscaler does: half precision, SR moved as numbers and rounded by NumPy. With --memory, the peak memory
of BasicSR's whole-image call and of ours is measured, each in a process of its own, with one block (memory does not
depend on the number of blocks).
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
import skimage.transform
import torch
from torch import Tensor, nn

from gramgan_plugin.checkpoints.generators import recognise
from gramgan_plugin.checkpoints.networks import Network
from gramgan_plugin.inference.compiled_engines import is_installed
from gramgan_plugin.inference.engines import build_engine
from gramgan_plugin.inference.upscaler import Upscaler
from gramgan_plugin.utils.system import bf16_instructions

CPU = torch.device("cpu")
Run = Callable[[], object]


def make_network(kind: str, blocks: int) -> tuple[nn.Module, Network]:
    """Return BasicSR's network and ours with the same weights."""
    from basicsr.archs.rrdbnet_arch import RRDBNet  # once the plugin is imported
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    torch.manual_seed(0)
    net: nn.Module = RRDBNet(3, 3, num_block=blocks) if kind == "rrdb" else SRVGGNetCompact()
    for parameter in net.parameters():
        if kind == "rrdb" and parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, a=0.2)
            parameter.data.mul_(0.5)
    net.eval().requires_grad_(False)
    found = recognise(net.state_dict())
    assert found is not None
    return net, Network(found.build(), found.architecture, 4, 3, 3)


def photo(height: int, width: int) -> np.ndarray:
    """Return a photo, (H, W, 3) uint8."""
    resized = skimage.transform.resize(skimage.data.astronaut(), (height, width), anti_aliasing=True)
    return np.round(255 * resized).astype(np.uint8)


def gpu_methods(net: nn.Module, network: Network, image: np.ndarray) -> dict[str, Callable[[], Tensor]]:
    """Return what is compared on a GPU: name -> a function that returns SR (1, 3, 4 H, 4 W) on the CPU."""
    whole, half = copy.deepcopy(net).cuda(), copy.deepcopy(net).cuda().half()
    upscaler = Upscaler(network, device="cuda")
    exact = Upscaler(network, device="cuda", precision="fp32")

    def upstream(model: nn.Module, dtype: torch.dtype) -> Tensor:
        lq = torch.from_numpy(np.transpose(image.astype(np.float32) / 255, (2, 0, 1))).float()[None].cuda().to(dtype)
        sr = model(lq).data.squeeze().float().cpu().clamp_(0, 1).numpy()
        return as_sr((np.transpose(sr, (1, 2, 0)) * 255.0).round().astype(np.uint8))

    return {
        "BasicSR, float32": lambda: upstream(whole, torch.float32),
        "BasicSR, float16": lambda: upstream(half, torch.float16),
        "ours, Upscaler fp32": lambda: as_sr(exact(image)),
        "ours, Upscaler": lambda: as_sr(upscaler(image)),
    }


def as_sr(image: np.ndarray) -> Tensor:
    """Return (1, 3, H, W) in [0, 1] that shares the memory of (H, W, 3) uint8 until it is compared."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def methods(net: nn.Module, network: Network, image: np.ndarray) -> dict[str, Callable[[], Tensor]]:
    """Return what is compared: name -> a function that returns SR (1, 3, 4 H, 4 W)."""
    lq = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
    last = lq.contiguous(memory_format=torch.channels_last)
    channels_last = network.net.to(memory_format=torch.channels_last)
    found: dict[str, Callable[[], Tensor]] = {
        "BasicSR, float32": lambda: net(lq),
        "torch channels-last": lambda: channels_last(last),
    }
    if bf16_instructions():
        found["ours, torch bf16"] = lambda: build_cached(network, "torch", "bf16").run(lq)
    compiled = torch.compile(channels_last)
    found["torch.compile, channels-last"] = lambda: compiled(last)
    if is_installed("openvino"):
        for precision in ("fp32", *(["bf16"] if bf16_instructions() else [])):
            found[f"OpenVINO {precision}"] = lambda p=precision: build_cached(network, "openvino", p).run(lq)
    if is_installed("onnx"):
        found["ONNX Runtime"] = lambda: build_cached(network, "onnx", "fp32").run(lq)
    by_torch = Upscaler(network, engine="torch", precision="fp32")
    found["ours, torch"] = lambda: by_torch.upscale_tensor(lq)
    upscaler = Upscaler(network)
    found["ours, Upscaler"] = lambda: torch.from_numpy(upscaler(image)).permute(2, 0, 1)[None] / 255
    return found


ENGINES: dict[tuple[int, str, str], object] = {}


def build_cached(network: Network, name: str, precision: str):
    """Return an engine, built once."""
    key = (id(network), name, precision)
    if key not in ENGINES:
        ENGINES[key] = build_engine(network, CPU, name, precision)
    return ENGINES[key]


def peak_rate(device: str) -> float:
    """Return the rate of a large matrix product in GFLOP/s: float32, on a GPU float16."""
    side = 2048 if device == "cpu" else 8192
    a, b = torch.rand(2, side, side).to(device, torch.float32 if device == "cpu" else torch.float16)
    seconds = min(timed(lambda: (a @ b)[0, 0].item()) for _ in range(5))
    return 2 * side**3 / seconds / 1e9


def timed(run: Run) -> float:
    """Return the seconds of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def flops(net: nn.Module, lq: Tensor) -> int:
    """Return the operations of the convolutions in one call."""
    total = 0

    def count(module: nn.Conv2d, args: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal total
        total += 2 * result.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]

    hooks = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, nn.Conv2d)]
    net(lq)
    for hook in hooks:
        hook.remove()
    return total


def compare(kind: str, side: int, rounds: int, blocks: int, device: str) -> list[dict[str, object]]:
    """Print a table of one network and size, and return its rows."""
    net, network = make_network(kind, blocks)
    image = photo(side, side)
    small = torch.rand(1, 3, 16, 16)
    operations = flops(net, small) * (side / 16) ** 2
    runs = methods(net, network, image) if device == "cpu" else gpu_methods(net, network, image)
    with torch.no_grad():
        results = {name: run() for name, run in runs.items()}  # compiles, allocates
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        peak = peak_rate(device)
        for _ in range(rounds):
            for name, run in runs.items():
                seconds[name].append(timed(run))
    results = {name: sr / 255 if sr.dtype == torch.uint8 else sr for name, sr in results.items()}
    reference = results["BasicSR, float32"].clamp(0, 1)
    first = min(seconds["BasicSR, float32"])
    print(f"\n{type(net).__name__}, {side}x{side} pixels, {operations / 1e9:,.0f} GFLOP; "
          f"matrix product {peak:,.0f} GFLOP/s")  # fmt: skip
    rows: list[dict[str, object]] = []
    for name, values in seconds.items():
        error = float((results[name].clamp(0, 1) - reference).double().square().mean())
        near = "equal" if error == 0 else f"{-10 * np.log10(error):.0f} dB"
        best = min(values)
        share = operations / best / 1e9 / peak
        print(f"{name:30} {best:8.3f} s  {first / best:5.2f}x  {100 * share:4.0f} % of the peak  {near}")
        figures = {"seconds": best, "ratio": first / best, "psnr": near}
        rows.append({"network": kind, "side": side, "method": name, **figures})
    print(f"Upscaler used: {next(iter(engine_names(runs)), 'torch')}")
    return rows


def engine_names(runs: dict[str, Callable[[], Tensor]]) -> list[str]:
    """Return the engine of the Upscaler."""
    closure = runs["ours, Upscaler"].__closure__ or ()
    return [str(cell.cell_contents.engine) for cell in closure if isinstance(cell.cell_contents, Upscaler)]


def memory(which: str, width: int, height: int) -> None:
    """Print the peak memory of one whole call beyond that of the process before it, in MB."""
    net, network = make_network("rrdb", 1)
    image = photo(height, width)
    lq = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.no_grad():
        if which == "basicsr":
            net(lq)
        else:
            Upscaler(network, engine=which)(image)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def compare_memory(width: int, height: int) -> None:
    """Print the peak memory of BasicSR's call and ours."""
    found = {}
    for which in ("basicsr", "torch", *(["openvino"] if is_installed("openvino") else [])):
        command = [sys.executable, __file__, "--one-memory", which, str(width), str(height)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found[which] = float(done.stdout) if done.returncode == 0 else None
    whole = found.pop("basicsr")
    told = "does not fit" if whole is None else f"{whole:,.0f} MB"
    print(f"{width}x{height} pixels; BasicSR's whole-image call: {told}")
    for which, own in found.items():
        ratio = "" if whole is None or own is None else f" ({own / whole:.2f} of it)"
        print(f"ours, {which}: {'failed' if own is None else f'{own:,.0f} MB'}{ratio}")


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("rrdb", "srvgg"), nargs="+", default=["rrdb", "srvgg"])
    parser.add_argument("--sides", type=int, nargs="+", default=[128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=23)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--memory", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--one-memory", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.one_memory:
        which, width, height = arguments.one_memory
        memory(which, int(width), int(height))
        return
    if arguments.memory:
        compare_memory(*arguments.memory)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, bf16 by {bf16_instructions() or 'nothing'}")
    rows = []
    for kind in arguments.network:
        for side in arguments.sides:
            rows += compare(kind, side, arguments.rounds, arguments.blocks, arguments.device)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
