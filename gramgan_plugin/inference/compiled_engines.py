"""Run modules by OpenVINO and by ONNX Runtime, on the CPU, for inputs of any size."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.checkpoints.networks import Network
from gramgan_plugin.checkpoints.onnx_export import INPUT, OUTPUT, module_to_onnx
from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.strips import Head, Trunk, in_strips
from gramgan_plugin.utils.text import first_line

Run = Callable[[Tensor], Tensor]

# What each engine needs -> the extra that brings it.
NEEDS = {"openvino": (("openvino",), "openvino"), "onnx": (("onnx", "onnxruntime"), "onnx")}
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def is_installed(engine: str) -> bool:
    """Return whether the packages of an engine are installed."""
    return all(importlib.util.find_spec(package) is not None for package in NEEDS[engine][0])


def compiled(engine: str, network: Network, precision: str) -> Run:
    """Return a function LQ -> SR, float32 on the CPU, that runs a network by another engine than torch.

    Args:
        engine: "openvino" or "onnx" (ONNX Runtime).
        network: of the ESRGAN family.
        precision: "fp32", or with OpenVINO "bf16".

    Raises:
        UserError: if the engine is not installed, or cannot run the network.
    """
    packages, extra = NEEDS[engine]
    try:
        for package in packages:
            importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is not installed: pip install gramgan-plugin[{extra}]") from error
    try:
        side = 16 * network.side_multiple
        image = torch.rand(1, network.in_channels, side, side)
        if isinstance(network.net, RRDBNet):
            trunk, head = Trunk(network.net), Head(network.net)
            runs = [_module(engine, part, given, precision) for part, given in ((trunk, image), (head, trunk(image)))]
            return in_strips(network.net, *runs)
        return _module(engine, network.net, image, precision)
    except Exception as error:  # each has its own kinds
        why = f"{network.architecture}: {first_line(error)}"
        raise UserError(f"{engine} cannot run {why}; use --engine torch") from error


def _module(engine: str, module: nn.Module, example: Tensor, precision: str) -> Run:
    return _openvino(module, example, precision) if engine == "openvino" else _onnx(module, example)


def _openvino(module: nn.Module, example: Tensor, precision: str) -> Run:
    openvino: Any = importlib.import_module("openvino")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about torch.jit.trace, which OpenVINO uses
        model = openvino.convert_model(module, example_input=example)
    model.reshape([-1, example.shape[1], -1, -1])
    hints = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    hints["INFERENCE_PRECISION_HINT"] = OPENVINO_PRECISIONS[precision]
    request = _openvino_core().compile_model(model, "CPU", hints).create_infer_request()

    def run(x: Tensor) -> Tensor:
        request.infer([x.float().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


@cache
def _openvino_core() -> Any:
    """Return the core of this process, never freed: its CPU plugin has a handler of SIGTERM, which outlives it."""
    return importlib.import_module("openvino").Core()


def _onnx(module: nn.Module, example: Tensor) -> Run:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised, too
    # Its threads would occupy the processor between two tiles.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = module_to_onnx(module, example)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        (result,) = session.run([OUTPUT], {INPUT: x.float().contiguous().numpy()})
        return torch.from_numpy(result)

    return run
