"""``basicsr benchmark``: measure models on sets, compare them, and write the report."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.evaluation.benchmark_models import BenchmarkModel, benchmark_models
from gramgan_plugin.evaluation.benchmark_run import Measurements, Protocol, measure_models
from gramgan_plugin.evaluation.benchmark_sets import BenchmarkSet, benchmark_sets
from gramgan_plugin.evaluation.merged_scores import Scores, read_scores
from gramgan_plugin.evaluation.metrics import DEFAULT, LABELS, choose_metrics
from gramgan_plugin.evaluation.report_page import write_report
from gramgan_plugin.evaluation.tables import markdown_table, result_tables
from gramgan_plugin.inference.upscaler import device_of
from gramgan_plugin.utils.devices import finest_dtype
from gramgan_plugin.utils.io import real_path
from gramgan_plugin.utils.text import did_you_mean, printable, shown
from gramgan_plugin.version import __version__

_PACKAGES = ("torch", "torchvision", "torchmetrics", "numpy", "scipy", "opencv-python", "pillow", "spandrel")
IMAGES = "images"


def benchmark(
    models: Sequence[str] | Mapping[str, str],
    data: Path,
    out: Path,
    *,
    sets: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    scale: int | None = None,
    crop: int | None = None,
    baseline: str | None = None,
    scores: Path | None = None,
    options: Mapping[str, Any],
) -> tuple[str, list[str]] | None:
    """Measure models on sets and write the report. Several processes share the images, and the first writes.

    Args:
        models: see `benchmark_models`.
        data: a folder of sets, see `benchmark_sets`.
        out: the folder of the report.
        sets: the sets to take; None for all.
        metrics: names of ``metrics.LABELS``; None for ``metrics.DEFAULT``.
        scale: of all models; None for the networks' own.
        crop: pixels left out at each border; None for the scale.
        baseline: the model whose differences to the others are shown; None for the first.
        scores: a CSV file, see `read_scores`.
        options: ``save_images``, ``device`` and ``tile``.

    Returns:
        A table of the means in Markdown, and a line for each image that could not be measured, and for each metric
        that was asked for and could not; None on all processes but the first.

    Raises:
        UserError: if a model, set or file cannot be used, or nothing could be measured.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file; give a folder for the report")
    chosen, unavailable = choose_metrics(metrics or DEFAULT)
    device = device_of(options["device"])
    if finest_dtype(device.type) != torch.float64:  # metrics need it
        device = torch.device("cpu")
    named, scale = benchmark_models(
        models, scale, device=options["device"], tile=options["tile"], engine="torch", precision="fp32"
    )
    labels = [model.label for model in named]
    if baseline is not None and baseline not in labels:
        hint = did_you_mean(baseline, labels, f"; there are {printable(', '.join(labels))}")
        raise UserError(f"--baseline: no model {shown(baseline)!r}{hint}")
    found_sets = benchmark_sets(data, scale, sets)
    crop = scale if crop is None else crop
    if crop < 0:
        raise UserError(f"--crop {crop}: must be at least 0")
    images = {one.name: [image.name for image in one.images] for one in found_sets}
    measured = {metric.label.name for metric in chosen}
    merged = Scores() if scores is None else read_scores(scores, labels, images, measured)
    save = out / IMAGES if options["save_images"] else None
    for path in (image.gt for one in found_sets for image in one.images):
        if save is not None and real_path(path).is_relative_to(real_path(save)):
            raise UserError(f"{save}: GT is in it; choose another -o")
    with file_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    found = measure_models(named, found_sets, Protocol(chosen, scale, crop, device, save))
    if found is None:
        return None
    if not any(result.per_image for result in found.results):
        reasons = [line for result in found.results for line in result.problems()]
        raise UserError([*reasons, *unavailable.values(), "nothing was measured"][0])
    shown_labels = {metric.label.name: metric.label for metric in chosen}
    shown_labels |= {label.name: label for label in merged.labels}
    for result in found.results:
        result.per_image |= merged.values.get((result.model, result.dataset), {})
    write_report(
        out,
        found.results,
        shown_labels,
        facts=_facts(named, found_sets, found, scale, crop, unavailable, device),
        pictures=found.pictures,
        baseline=baseline or labels[0],
        scale=scale,
    )
    table = markdown_table(result_tables(found.results, shown_labels))
    missing = [printable(f"{LABELS[name].label} is not measured: {reason}") for name, reason in unavailable.items()]
    problems = [printable(line) for result in found.results for line in result.problems()]
    if metrics is None:  # nobody asked for them by name
        table += "".join(f"- {line}\n" for line in missing)
    else:
        problems = missing + problems
    return table, list(dict.fromkeys(problems))


def _facts(
    models: Sequence[BenchmarkModel],
    sets: Sequence[BenchmarkSet],
    found: Measurements,
    scale: int,
    crop: int,
    unavailable: Mapping[str, str],
    device: torch.device,
) -> dict[str, Any]:
    protocol = [
        f"Scale {scale}. SR is rounded to 8 bits before it is measured; {crop} pixels are left out at each border.",
        "PSNR-Y and SSIM-Y are of luma (BT.601, studio range), as in MATLAB's rgb2ycbcr.",
        "Colour profiles are ignored. Means are over images.",
        *(f"{one.name}: {len(one.images)} images; LQ: {found.lq[one.name]}." for one in sets),
        *(
            f"{one.name}: the set has {one.expected} images; these means are not comparable with published ones."
            for one in sets
            if one.expected is not None and one.expected != len(one.images)
        ),
        *(f"{LABELS[name].label} is not measured: {reason}" for name, reason in unavailable.items()),
    ]
    return {
        "protocol": protocol,
        "models": {model.label: model.about for model in models},
        "GT (SHA-256 over the sorted lines of sha256sum)": {one.name: one.digest() for one in sets},
        "versions": {"gramgan-plugin": __version__, "python": platform.python_version(), **_versions()},
        "device": device.type if device.type != "cuda" else torch.cuda.get_device_name(device),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
