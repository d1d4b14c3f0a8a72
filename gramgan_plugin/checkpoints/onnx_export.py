"""Export a network to ONNX with dynamic sizes, and compare it with torch by ONNX Runtime."""

import importlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.checkpoints.networks import Network
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.text import first_line

OPSET = 17
INPUT, OUTPUT = "lq", "sr"
# ONNX Runtime sums in another order than torch.
LARGEST_DIFFERENCE = 1e-3


def export_onnx(network: Network, target: Path) -> float:
    """Write an ONNX file: ``lq`` (N, C, H, W) -> ``sr`` (N, C, s H, s W), float32, opset 17, any N, H and W.

    It is run by ONNX Runtime in two sizes and compared with torch before it is written.

    Returns:
        The largest difference from torch's results.

    Raises:
        UserError: if onnx or onnxruntime is missing, the network cannot be exported, or the results differ.
    """
    for package in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"{package} is not installed: pip install gramgan-plugin[onnx]") from error
    try:
        content = module_to_onnx(network.net, _images(network)[0])
    except Exception as error:  # the exporter has many kinds
        raise UserError(f"{network.architecture} cannot be exported to ONNX: {first_line(error)}") from error
    try:
        difference = max(_difference(network, content, image) for image in _images(network))
    except Exception as error:  # ONNX Runtime has its own kinds
        raise UserError(f"{network.architecture}: ONNX Runtime cannot run the export: {first_line(error)}") from error
    if not difference <= LARGEST_DIFFERENCE:
        raise UserError(f"{network.architecture}: the export differs from torch by {difference:.3g}; not written")
    replace_file(target, content, synced=True)
    return difference


def module_to_onnx(module: nn.Module, example: Tensor) -> bytes:
    """Return a module as an ONNX file with dynamic sizes: ``lq`` (N, C, H, W) -> ``sr``.

    Args:
        module: in float32 on the CPU, without data-dependent control flow.
        example: an input.
    """
    stream = io.BytesIO()
    axes = {name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in (INPUT, OUTPUT)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            stream,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=axes,
        )
    return stream.getvalue()


def _images(network: Network) -> list[Tensor]:
    """Return random images of two sizes and batches."""
    generator = torch.Generator().manual_seed(0)
    step = network.side_multiple
    least = -(-max(24, network.least_side) // step) * step
    sizes = ((1, least, least + 4 * step), (2, least + 2 * step, least))
    return [torch.rand(n, network.in_channels, h, w, generator=generator) for n, h, w in sizes]


def _difference(network: Network, content: bytes, image: Tensor) -> float:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (result,) = session.run([OUTPUT], {INPUT: image.numpy()})
    with torch.inference_mode():
        expected = network.net(image)
    return float((torch.from_numpy(result) - expected).abs().max())
