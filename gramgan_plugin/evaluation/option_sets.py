"""``basicsr test``: measure a model and the bicubic baseline on each test set of an option file."""

import logging
from pathlib import Path
from typing import Any

import cv2

from gramgan_plugin.data.loaders import build_test_loaders
from gramgan_plugin.errors import OptionError, UserError, file_errors
from gramgan_plugin.evaluation.enlarge import ModelEnlarger, bicubic_enlarger
from gramgan_plugin.evaluation.measure import SetResult, measure, write_image
from gramgan_plugin.models.build import build_model
from gramgan_plugin.utils.io import save_json
from gramgan_plugin.utils.pictures import Image, side_by_side

logger = logging.getLogger("basicsr")


def measure_option_sets(opt: dict[str, Any], folder: Path) -> list[SetResult]:
    """Measure the model and the bicubic baseline on each test set, and write the results.

    Args:
        opt: resolved options; the test sets are ``datasets.test*``, or if there are none, ``datasets.val*``.
        folder: gets ``results.json``, ``results.md`` and, with ``val.save_img``, ``visualization/SET/``: SR, bicubic,
            and a comparison of both with GT.

    Returns:
        For each set, the bicubic baseline's result and the model's.

    Raises:
        OptionError: if there is no test set.
        UserError: if no image of any set can be measured, with the reason of the first; the results are written.
    """
    loaders = build_test_loaders(opt, "test") or build_test_loaders(opt, "val")
    if not loaders:
        raise OptionError("datasets: no test set; add one as test_1, test_2, ...")
    validation = opt.get("val") or {}
    metrics = validation.get("metrics") or {}
    model = build_model(opt)
    save, stop = bool(validation.get("save_img")), validation.get("on_error") == "stop"
    results = []
    for loader in loaders:
        name = loader.dataset.opt["name"]  # type: ignore[attr-defined]
        logger.info(f"Testing {name}: {len(loader)} images")
        pictures = _Pictures(folder / "visualization" / name, validation.get("suffix") or opt["name"])
        models: dict[str, tuple[Any, Any]] = {}
        if opt.get("scale"):
            models["bicubic"] = bicubic_enlarger(int(opt["scale"])), pictures.keep_baseline
        models[opt["name"]] = ModelEnlarger(model, validation.get("tile")), pictures.keep_result
        for label, (enlarge, keep) in models.items():
            result = measure(
                enlarge,
                loader,
                metrics,
                model=label,
                device=model.device,
                stop=stop,
                keep=keep if save else None,
            )
            results.append(result)
    for line in _problems(results):
        logger.warning(line)
    save_json({"rows": [row for result in results for row in result.rows()]}, folder / "results.json")
    with file_errors(folder / "results.md"):
        (folder / "results.md").write_text(markdown_table(results), encoding="utf-8")
    own = [result for result in results if result.model == opt["name"]]
    reasons = [reason for result in own for images in result.left_out.values() for reason in images.values()]
    if reasons and not any(result.per_image for result in own):
        raise UserError(reasons[0])
    return results


def markdown_table(results: list[SetResult]) -> str:
    """Return a Markdown table of the means: a row per model and set, a column per metric; below, each set's LQ.

    >>> print(markdown_table([SetResult("bicubic", "Set5", {"psnr": {"baby": 30.0, "bird": 31.0}})]))
    | set | model | psnr |
    |---|---|---:|
    | Set5 | bicubic | 30.5000 |
    <BLANKLINE>
    - LQ of Set5: not recorded
    <BLANKLINE>
    """
    metrics = list(dict.fromkeys(metric for result in results for metric in result.per_image))
    if not metrics:
        return "no metric was measured\n"
    lines = [f"| set | model | {' | '.join(metrics)} |", "|---|---|" + "---:|" * len(metrics)]
    for result in results:
        means = result.means()
        cells = [f"{means[metric]:.4f}" if metric in means else "" for metric in metrics]
        lines.append(f"| {result.dataset} | {result.model} | {' | '.join(cells)} |")
    kinds = {result.dataset: result.lq for result in results}
    lines += ["", *(f"- LQ of {name}: {kind}" for name, kind in kinds.items())]
    lines += [f"- {line}" for line in _problems(results)]
    return "\n".join(lines) + "\n"


def _problems(results: list[SetResult]) -> list[str]:
    """Return a line for each image or metric that could not be measured; one line for several models."""
    by_line: dict[str, list[str]] = {}
    for result in results:
        for line in result.problems():
            by_line.setdefault(line, []).append(result.model)
    all_models = {result.model for result in results}
    return [line if set(models) == all_models else f"{', '.join(models)}: {line}" for line, models in by_line.items()]


class _Pictures:
    """Writes each SR image and a comparison with bicubic and GT."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self.suffix = suffix

    def keep_baseline(self, name: str, image: Image, truth: Image | None) -> None:
        write_image(image, self.folder / f"{name}_bicubic.png")

    def keep_result(self, name: str, image: Image, truth: Image | None) -> None:
        write_image(image, self.folder / f"{name}_{self.suffix}.png")
        baseline = cv2.imread(str(self.folder / f"{name}_bicubic.png"))
        versions = {"bicubic": baseline, self.suffix: image, "GT": truth}
        shown = {label: version for label, version in versions.items() if version is not None}
        if len({version.shape for version in shown.values()}) == 1 and image.shape[2] == 3:
            write_image(side_by_side(shown), self.folder / f"{name}_comparison.png")
