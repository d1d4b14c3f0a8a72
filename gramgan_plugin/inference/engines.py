"""Run a network with torch, OpenVINO or ONNX Runtime, whichever is fastest here and near enough to float32."""

import copy
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.checkpoints.foreign_networks import ForeignNetwork
from gramgan_plugin.checkpoints.networks import Network
from gramgan_plugin.errors import UserError, is_out_of_memory
from gramgan_plugin.functional.padding import pad_to_multiple
from gramgan_plugin.inference.compiled_engines import compiled, is_installed
from gramgan_plugin.inference.strips import in_strips
from gramgan_plugin.utils.system import bf16_instructions
from gramgan_plugin.utils.text import first_line

logger = logging.getLogger("gramgan_plugin")

ENGINES = ("auto", "torch", "openvino", "onnx")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILED = {"openvino": ("fp32", "bf16"), "onnx": ("fp32",)}  # engines besides torch, and their precisions
# Of lower precision, the PSNR (dB) of its result to that of float32.
LEAST_PSNR = 45.0
# Another engine than torch in float32 must be at least so many times as fast.
LEAST_GAIN = 1.05
TIMED_ROUNDS = 3
WORTH_TIMING = 15.0  # seconds


@dataclass(frozen=True)
class Engine:
    """A way to run a network.

    Attributes:
        name: "torch", "openvino" or "onnx".
        precision: "fp32", "bf16" or "fp16".
        run: LQ (N, C, H, W), float32 in [0, 1] on any device -> SR (N, C', s H, s W), float32.
    """

    name: str
    precision: str
    run: Callable[[Tensor], Tensor]

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


def torch_engine(
    network: Network, device: torch.device, precision: str, layout: torch.memory_format = torch.channels_last
) -> Engine:
    """Return an engine of torch.

    Args:
        network: its weights are copied.
        device: where it runs.
        precision: "fp32", "bf16" or "fp16".
        layout: of weights and features; channels-last is faster, but not every architecture takes it.
    """
    dtype = DTYPES[precision]
    net = copy.deepcopy(network.net).to(device, dtype)
    net.to(memory_format=layout)
    run = in_strips(net, net.trunk, net.head) if isinstance(net, RRDBNet) else net

    def upscale(lq: Tensor) -> Tensor:
        with torch.no_grad():
            # A copy: some networks write into their input.
            result: Tensor = run(lq.to(device, dtype, copy=True, memory_format=layout))
            return result.float()

    return Engine("torch", precision, upscale)


def candidates(network: Network, device: torch.device, engine: str, precision: str) -> list[tuple[str, str]]:
    """Return the engines and precisions that are allowed and may be fast here, float32 by torch first if allowed.

    Args:
        network: what is run.
        device: where.
        engine: of ``ENGINES``.
        precision: of ``PRECISIONS``.
    """
    if device.type != "cpu":
        low = "fp16" if network.half else "fp32"
        return [("torch" if engine == "auto" else engine, low if precision == "auto" else precision)]
    precisions = ["fp32", *(["bf16"] if bf16_instructions() else [])] if precision == "auto" else [precision]
    family = network.architecture in ("RRDBNet", "SRVGGNetCompact", "MSRResNet")
    others = [name for name in COMPILED if family and is_installed(name)]
    engines = ["torch", *others] if engine == "auto" else [engine]
    return [
        (name, one)
        for name in engines
        for one in precisions
        if engine != "auto" or one in COMPILED.get(name, precisions)
    ]


def build_engine(network: Network, device: torch.device, name: str, precision: str) -> Engine:
    """Return one engine by its name.

    Args:
        network: what is run.
        device: where.
        name: of ``ENGINES``, but "auto".
        precision: of ``PRECISIONS``, but "auto".

    Raises:
        UserError: if it cannot run the network, or not here.
    """
    if name == "torch":
        return _torch_engine_that_runs(network, device, precision)
    if device.type != "cpu" or precision not in COMPILED[name]:
        raise UserError(f"{name} runs on the CPU, in {' or '.join(COMPILED[name])}")
    return Engine(name, precision, compiled(name, network, precision))


def _torch_engine_that_runs(network: Network, device: torch.device, precision: str) -> Engine:
    """Try a network of spandrel: some take no channels-last layout, or mix float32 with the type of their weights."""
    if not isinstance(network.net, ForeignNetwork):
        return torch_engine(network, device, precision)
    image = pad_to_multiple(torch.zeros(1, network.in_channels, 16, 16), network.side_multiple, network.least_side)
    for layout in (torch.channels_last, torch.contiguous_format):
        try:
            engine = torch_engine(network, device, precision, layout)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about torch's functions; each comes once
                engine.run(image)
            return engine
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = first_line(error)
    raise UserError(f"{network.architecture} does not run in {precision} ({reason})")


def choose_engine(
    network: Network, device: torch.device, engine: str, precision: str, image: Tensor, times: float
) -> Engine:
    """Return the fastest allowed engine, by a moment's timing on a part of the user's own image.

    Args:
        network: what is run.
        device: where.
        engine: of ``ENGINES``.
        precision: of ``PRECISIONS``.
        image: LQ (1, C, H, W) in [0, 1], small.
        times: how many images of this size the job amounts to. If the first candidate needs less than
            ``WORTH_TIMING`` seconds for them, it is taken.

    Raises:
        UserError: if the only allowed engine cannot run the network.
    """
    if device.type == "cpu" and (precision == "fp16" or (precision == "bf16" and bf16_instructions() == [])):
        logger.warning(f"precision {precision}: CPUs without instructions for it are slower than in fp32")
    allowed = candidates(network, device, engine, precision)
    if len(allowed) == 1:
        try:
            return build_engine(network, device, *allowed[0])
        except UserError as error:
            if precision != "auto" or allowed[0][1] == "fp32":
                raise
            logger.warning(f"{error}: fp32 is used")
            return build_engine(network, device, allowed[0][0], "fp32")
    best, least, reference, figures = None, float("inf"), None, []
    for name, kind in allowed:
        try:
            built = build_engine(network, device, name, kind)
            seconds, result = _timed(built, image)
        except (UserError, RuntimeError) as error:
            figures.append(f"{name} {kind}: {first_line(error)}")
            continue
        if reference is None and seconds * times < WORTH_TIMING:
            return built
        reference = result if reference is None else reference
        near = kind == "fp32" or _psnr(result, reference) >= LEAST_PSNR
        figures.append(f"{built} {seconds:.3f} s" + ("" if near else " (not near enough to float32)"))
        if near and seconds * (LEAST_GAIN if best is not None else 1) < least:
            best, least = built, seconds
    if best is None:
        raise UserError(f"{network.architecture} runs with none of the engines: {'; '.join(figures)}")
    logger.info(f"engine: {best} is used ({', '.join(figures)})")
    return best


def _timed(engine: Engine, image: Tensor) -> tuple[float, Tensor]:
    result = engine.run(image)  # the first run allocates and chooses kernels
    least = float("inf")
    for _ in range(TIMED_ROUNDS):
        begun = time.perf_counter()
        engine.run(image)
        least = min(least, time.perf_counter() - begun)
    return least, result


def _psnr(first: Tensor, second: Tensor) -> float:
    error = float((first.clamp(0, 1) - second.clamp(0, 1)).double().square().mean())
    return float("inf") if error == 0 else -10 * torch.log10(torch.tensor(error, dtype=torch.float64)).item()
