"""``basicsr test``: a model and the bicubic baseline on each test set of an option file."""

import logging
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.files import save_json
from gramgan_plugin.data.loaders import build_test_loaders
from gramgan_plugin.errors import OptionError
from gramgan_plugin.evaluation.measure import SetResult, bicubic_enlarger, measure, model_enlarger
from gramgan_plugin.models.build import build_model

logger = logging.getLogger("basicsr")


def run_benchmark(opt: dict[str, Any], folder: Path) -> list[SetResult]:
    """Test as the options say.

    Args:
        opt: resolved options; the test sets are those under ``datasets.test*`` (upstream's ``val*`` serve, too).
        folder: where ``results.json``, ``results.md`` and, with ``val.save_img``, ``visualization/SET/`` go.

    Returns:
        For each set, the bicubic baseline's result and the model's.

    Raises:
        OptionError: if there is no test set.
    """
    loaders = build_test_loaders(opt, "test") or build_test_loaders(opt, "val")
    if not loaders:
        raise OptionError("datasets: no test set; name one test_1, test_2, ...")
    validation = opt.get("val") or {}
    metrics = validation.get("metrics") or {}
    model = build_model(opt)
    results = []
    for loader in loaders:
        name = loader.dataset.opt["name"]  # type: ignore[attr-defined]
        logger.info(f"Testing {name}: {len(loader)} images")
        common: dict[str, Any] = {"device": model.device}
        if opt.get("scale"):
            results.append(measure(bicubic_enlarger(int(opt["scale"])), loader, metrics, model="bicubic", **common))
        picture = _picture_path(opt, folder, name) if validation.get("save_img") else None
        results.append(measure(model_enlarger(model), loader, metrics, model=opt["name"], picture=picture, **common))
    save_json({"rows": [row for result in results for row in result.rows()]}, folder / "results.json")
    (folder / "results.md").write_text(markdown_table(results), encoding="utf-8")
    return results


def markdown_table(results: list[SetResult]) -> str:
    """A row a model and set, a column a metric, means over the images.

    >>> print(markdown_table([SetResult("bicubic", "Set5", {"psnr": {"baby": 30.0, "bird": 31.0}})]))
    | set | model | psnr |
    |---|---|---:|
    | Set5 | bicubic | 30.5000 |
    <BLANKLINE>
    """
    metrics = list(dict.fromkeys(metric for result in results for metric in result.per_image))
    lines = [f"| set | model | {' | '.join(metrics)} |", "|---|---|" + "---:|" * len(metrics)]
    for result in results:
        means = result.means()
        cells = [f"{means[metric]:.4f}" if metric in means else "" for metric in metrics]
        lines.append(f"| {result.dataset} | {result.model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _picture_path(opt: dict[str, Any], folder: Path, dataset: str) -> Any:
    suffix = (opt.get("val") or {}).get("suffix") or opt["name"]
    return lambda name: folder / "visualization" / dataset / f"{name}_{suffix}.png"
