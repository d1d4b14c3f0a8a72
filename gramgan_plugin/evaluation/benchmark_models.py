"""Models to measure: weights in any format, public ones by name, interpolations, bicubic, and folders of results."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gramgan_plugin.checkpoints.generators import recognise
from gramgan_plugin.checkpoints.interpolate import mixed_weights, read_sources, strangers_warning
from gramgan_plugin.checkpoints.networks import Network, build_network
from gramgan_plugin.checkpoints.weights_cache import resolve_weights
from gramgan_plugin.checkpoints.weights_file import WeightsFile, read_weights
from gramgan_plugin.data.images import list_images
from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.benchmark_sets import GT, Pixels, read_pixels
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.inference.upscaler import Upscaler
from gramgan_plugin.utils.io import expanded, file_sha256, real_path
from gramgan_plugin.utils.text import printable, shown

logger = logging.getLogger("gramgan_plugin")

BICUBIC = "bicubic"
LARGEST_SCALE = 16
_INTERPOLATION = re.compile(r"(?P<first>.+)@(?P<share>[^@:]+):(?P<second>.+)")


@dataclass(frozen=True)
class BenchmarkModel:
    """A model to measure.

    Attributes:
        label: its name in tables.
        enlarge: takes the names of set and image, and LQ (h, w, 3) uint8 RGB; returns SR of the same type.
        scale: of a network; None where it follows from the data.
        about: what it is, in words: architecture, files and their SHA-256, shares.
    """

    label: str
    enlarge: Callable[[str, str, Pixels], Pixels]
    scale: int | None = None
    about: str = ""


def benchmark_models(
    models: Sequence[str] | Mapping[str, str], scale: int | None = None, **options: Any
) -> tuple[list[BenchmarkModel], int]:
    """Return the models of a command line, with different labels, and their scale.

    Args:
        models: "bicubic", files or names of weights, ``A@0.8:B`` (the weights 0.8 A + 0.2 B), or folders of results.
            A mapping gives their labels: label -> model.
        scale: of all; None for the networks' own, or 4 if there is no network.
        options: of `Upscaler`, such as device, tile and precision.

    Raises:
        UserError: if one cannot be used, two have different scales, or ``scale`` is not from 1 to 16.
    """
    if scale is not None and not 1 <= scale <= LARGEST_SCALE:
        raise UserError(f"--scale {scale}: must be from 1 to {LARGEST_SCALE}")
    texts = list(models.values()) if isinstance(models, Mapping) else models
    found = [None if text == BICUBIC else _model(text, options) for text in texts]
    scales = [(model.label, model.scale) for model in found if model is not None and model.scale is not None]
    if scale is None:
        scale = scales[0][1] if scales else 4
    for label, own in scales:
        if own != scale:
            raise UserError(f"{label} has scale {own}, not {scale}; measure models of one scale at a time")
    wanted = scale
    baseline = BenchmarkModel(BICUBIC, lambda _set, _name, lq: bicubic(lq, wanted), scale, "MATLAB's bicubic")
    whole = [baseline if model is None else model for model in found]
    if isinstance(models, Mapping):
        whole = [replace(model, label=printable(label)) for label, model in zip(models, whole, strict=True)]
    named: dict[str, BenchmarkModel] = {}  # none is called as GT is in pictures
    for model in whole:
        label, number = model.label, 2
        while label in named or label == GT:
            label, number = f"{model.label} ({number})", number + 1
        named[label] = replace(model, label=label)
    return list(named.values()), scale


def bicubic(lq: Pixels, scale: int) -> Pixels:
    """Enlarge (h, w, 3) uint8 RGB by MATLAB's bicubic, rounded to uint8."""
    tensor = torch.from_numpy(lq.astype(np.float64)).permute(2, 0, 1)[None]
    sr = matlab_bicubic(tensor, up=scale).clamp_(0, 255).round_()
    return np.ascontiguousarray(sr[0].permute(1, 2, 0).numpy().astype(np.uint8))


def _model(text: str, options: dict[str, Any]) -> BenchmarkModel:
    path = expanded(text)
    if path.is_dir():
        return _results(path)
    parts = None if path.exists() else _INTERPOLATION.fullmatch(text)
    if parts is not None:
        return _interpolated(parts["first"], parts["share"], parts["second"], options)
    file = resolve_weights(text)
    weights = read_weights(file, None)
    network = build_network(weights, recognise(weights.state))
    return _of_network(_label(file), network, [weights], options)


def _label(file: Path) -> str:
    """Return a file's name without suffix; in a run's folder the run's name, and the iteration unless it is the latest.

    >>> _label(Path("experiments/mine/models/net_g_5000.pth")), _label(Path("weights/ESRGAN_x4.pth"))
    ('mine 5000', 'ESRGAN_x4')
    """
    folder, which = real_path(file.parent), file.stem.removeprefix("net_g_")
    run = folder.parent.name
    if folder.name != "models" or not run or which in (file.stem, ""):
        return file.stem
    return run if which == "latest" else f"{run} {which}"


def _of_network(
    label: str, network: Network, files: Sequence[WeightsFile], options: dict[str, Any], shares: str = ""
) -> BenchmarkModel:
    upscaler = Upscaler(network, **options)
    sources = [
        f"{file.path.name}{f' ({file.key})' if file.key else ''} with SHA-256 {file_sha256(file.path)}"
        for file in files
    ]
    about = printable(f"{network.architecture} x{network.scale}{shares}: {', '.join(sources)}")
    return BenchmarkModel(printable(label), lambda _set, _name, lq: upscaler(lq), network.scale, about)


def _interpolated(first: str, share: str, second: str, options: dict[str, Any]) -> BenchmarkModel:
    try:
        weight = float(share)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= 1:
        raise UserError(f"{shown(first)}@{shown(share)}: expected A@SHARE:B with a share from 0 to 1")
    sources = read_sources([resolve_weights(first), resolve_weights(second)])
    network = build_network(*mixed_weights(sources, [weight, 1 - weight]))
    warning = strangers_warning(sources)
    if warning is not None:
        logger.warning(warning)
    files = [source.file for source in sources]
    names = [_label(file.path) for file in files]
    label, shares = f"{names[0]}@{weight:g}:{names[1]}", f", shares {weight:g} and {1 - weight:g}"
    return _of_network(label, network, files, options, shares)


def _results(folder: Path) -> BenchmarkModel:
    """Return a model that reads ``FOLDER/SET/NAME.png`` or ``FOLDER/NAME.png``; NAME may have an ending such as _x4."""

    def read(dataset: str, name: str, lq: Pixels) -> Pixels:
        for place in (folder / dataset, folder):
            names = list_images(place) if place.is_dir() else []
            exact = [one for one in names if Path(one).stem == name]
            # Not img_1.png for img: that is another image of the set.
            fitting = exact or [one for one in names if re.match(rf"{re.escape(name)}[_. -](?!\d+(?:[_. -]|$))", one)]
            if len(fitting) > 1:
                raise UserError(f"{printable(place.name)}: {len(fitting)} results of {shown(name)}; keep one of them")
            if fitting:
                return read_pixels(place / fitting[0])
        raise UserError(f"{printable(folder.name)}: has no result of {shown(dataset)}'s {shown(name)}")

    return BenchmarkModel(printable(real_path(folder).name or "results"), read, None, "results in a folder")
