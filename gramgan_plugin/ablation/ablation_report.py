"""Measure the networks of an ablation and write its report."""

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gramgan_plugin.ablation.ablation_file import Ablation, AblationRun
from gramgan_plugin.ablation.ablation_tradeoff import draw_tradeoff
from gramgan_plugin.ablation.run_queue import Outcome
from gramgan_plugin.ablation.start_weights import start_weights
from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.benchmark_models import BICUBIC
from gramgan_plugin.evaluation.benchmark_report import benchmark
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.over_seeds import OverSeeds, averaged_results, over_seeds
from gramgan_plugin.evaluation.report_page import ModelDifference, differences
from gramgan_plugin.evaluation.tables import ARROWS, escaped_markdown
from gramgan_plugin.training.curves import Metrics, read_metrics
from gramgan_plugin.training.plots import plot_runs
from gramgan_plugin.utils.io import replace_file, save_json
from gramgan_plugin.utils.pages import render_page

TEMPLATE = "ablation_template.html"
BENCHMARK = "benchmark"
CURVES, TRADEOFF = "curves.png", "tradeoff.png"


def write_ablation_report(out: Path, ablation: Ablation, outcomes: Mapping[str, Outcome]) -> tuple[str, list[str]]:
    """Measure the networks of the finished runs, and write the report.

    It has ``benchmark/`` (the report of `benchmark`), ``index.html``, ``table.md``, ``tradeoff.png``,
    ``curves.png`` and ``results.json``.

    Args:
        out: its folder.
        ablation: with at least one finished run.
        outcomes: of each run, by name.

    Returns:
        The table in Markdown, and a line for each problem: images that could not be measured, missing curves.

    Raises:
        UserError: if nothing can be measured, or a file cannot be written.
    """
    runs = [run for run in ablation.runs if outcomes[run.name].state == "finished"]
    labels = {ablation.label(run): run for run in runs}
    finished = [run.variant for run in runs]
    baseline = ablation.baseline if ablation.baseline in finished else finished[0]
    problems = []
    if baseline != ablation.baseline:
        problems.append(f"the baseline {ablation.baseline} has no finished run; differences are to {baseline}")
    with TemporaryDirectory() as folder:
        references = {BICUBIC: BICUBIC} | start_weights(ablation, Path(folder), problems)
        measured = _measured(references, labels, baseline, ablation, out)
    assert measured is not None  # there is one process
    found = json.loads((out / BENCHMARK / "results.json").read_text(encoding="utf-8"))
    metrics = {metric["name"]: MetricLabel(**metric) for metric in found["metrics"]}
    results = _results(found["rows"])
    members = {label: (label, 0) for label in references}
    members |= {label: (run.variant, run.seed) for label, run in labels.items()}
    summary = over_seeds(results, members)
    compared = differences(averaged_results(results, members), list(metrics), baseline)
    curves = _draw_curves(labels, out / CURVES, problems)
    tradeoff = draw_tradeoff(summary, metrics, out / TRADEOFF)
    facts: dict[str, dict[str, Any]] = {label: {"run": None, "variant": label, "seed": None} for label in references}
    facts |= {label: _facts(run) for label, run in labels.items()}
    states = [{**_facts(run), **asdict(outcomes[run.name])} for run in ablation.runs]
    data = {
        "rows": [{**row, **facts[row["model"]]} for row in found["rows"]],
        "over_seeds": [asdict(row) for row in summary],
        "differences": [asdict(one) for one in compared],
        "baseline": baseline,
        "runs": states,
        "metrics": found["metrics"],
        "facts": found["facts"],
    }
    save_json(data, out / "results.json")
    rows = _table(summary, compared, metrics, references)
    text = _markdown(rows, metrics, baseline)
    replace_file(out / "table.md", text.encode())
    page = render_page(
        "gramgan_plugin.ablation",
        TEMPLATE,
        name=ablation.name,
        baseline=baseline,
        headings=[f"{metric.heading} {ARROWS[metric.better]}" for metric in metrics.values()],
        rows=rows,
        runs=states,
        changes={variant: changed_keys(changes) for variant, changes in ablation.changes.items()},
        problems=[*problems, *measured[1]],
        tradeoff=_embedded(out / TRADEOFF) if tradeoff else "",
        curves=_embedded(out / CURVES) if curves else "",
    )
    replace_file(out / "index.html", page)
    return text, [*problems, *measured[1]]


def _embedded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def _measured(
    references: Mapping[str, str], labels: Mapping[str, AblationRun], baseline: str, ablation: Ablation, out: Path
) -> tuple[str, list[str]] | None:
    return benchmark(
        {**references, **{label: str(run.weights) for label, run in labels.items()}},
        ablation.data,
        out / BENCHMARK,
        sets=ablation.sets,
        metrics=ablation.metrics,
        baseline=next(label for label, run in labels.items() if run.variant == baseline),
        options={"save_images": False, "device": None, "tile": "auto"},
    )


def changed_keys(changes: Mapping[str, Any], where: str = "") -> list[str]:
    """Return a line for each option that a variant changes.

    >>> changed_keys({"train": {"gan_opt": {"mask": None}, "ema_decay": 0.9}})
    ['train.gan_opt.mask: null', 'train.ema_decay: 0.9']
    """
    lines = []
    for key, value in changes.items():
        path = f"{where}.{key}" if where else str(key)
        if isinstance(value, Mapping) and value:
            lines += changed_keys(value, path)
        else:
            lines.append(f"{path}: {json.dumps(value, ensure_ascii=False)}")
    return lines


def _facts(run: AblationRun) -> dict[str, Any]:
    return {"run": run.name, "variant": run.variant, "seed": run.seed}


def _results(rows: Sequence[Mapping[str, Any]]) -> list[SetResult]:
    found: dict[tuple[str, str], SetResult] = {}
    for row in rows:
        key = row["model"], row["set"]
        result = found.setdefault(key, SetResult(*key, lq=row["lq"]))
        if row["per_image"]:
            result.per_image[row["metric"]] = row["per_image"]
    return list(found.values())


def _draw_curves(labels: Mapping[str, AblationRun], out: Path, problems: list[str]) -> bool:
    """Draw the losses and validation metrics of all runs; return False if there is nothing to draw.

    Args:
        labels: label -> run.
        out: the picture.
        problems: gets a line for each run whose curves cannot be read.
    """
    found = {}
    for label, run in labels.items():
        try:
            metrics = read_metrics(run.folder / "metrics.jsonl")
        except UserError as error:
            problems.append(f"{run.name} has no curves: {error}")
            continue
        losses = {key: curve for key, curve in metrics.training.items() if key.startswith("l_")}
        found[label] = Metrics(losses, metrics.validation)
    if not any(metrics.by_name() for metrics in found.values()):
        problems.append("no curves are drawn: no run has logged losses or validations")
        return False
    plot_runs(found, out)
    return True


def _table(
    summary: Sequence[OverSeeds],
    compared: Sequence[ModelDifference],
    metrics: Mapping[str, MetricLabel],
    references: Collection[str],
) -> list[dict[str, Any]]:
    """Return a row for each set and variant; its cells are text, the difference to the baseline in the second line."""
    cells: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in summary:
        label = metrics[row.metric]
        text = label.text(row.mean) if row.std is None else f"{label.text(row.mean)} ± {label.text(row.std)}"
        cells.setdefault((row.dataset, row.variant), {})[row.metric] = [text]
    for one in compared:
        if one.difference is not None and one.metric in cells.get((one.dataset, one.model), {}):
            cells[one.dataset, one.model][one.metric].append(_difference(one, metrics[one.metric]))
    rows = []
    for (dataset, variant), own in cells.items():
        seeds = max(len(row.per_seed) for row in summary if (row.dataset, row.variant) == (dataset, variant))
        shown_seeds = "–" if variant in references else str(seeds)
        cells_of_row = [own.get(name, ["–"]) for name in metrics]
        rows.append({"set": dataset, "variant": variant, "seeds": shown_seeds, "cells": cells_of_row})
    return rows


def _difference(one: ModelDifference, label: MetricLabel) -> str:
    difference = one.difference
    assert difference is not None
    signed = [
        f"{value:+.{label.decimals}f}"
        for value in (difference.mean, difference.low, difference.high)
        if value is not None
    ]
    if len(signed) == 1:
        return f"{signed[0]} (one image: no interval)"
    if not any(float(value) for value in signed):
        return "±0"
    verdict = ("better" if label.score(difference.mean) > 0 else "worse") if difference.significant else "unclear"
    return f"{signed[0]} [{signed[1]}, {signed[2]}] {verdict}"


def _markdown(rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, MetricLabel], baseline: str) -> str:
    headings = [f"{escaped_markdown(metric.heading)} {ARROWS[metric.better]}" for metric in metrics.values()]
    lines = [f"| set | variant | seeds | {' | '.join(headings)} |", "|---|---|---:|" + "---:|" * len(headings)]
    for row in rows:
        cells = ["<br>".join(cell) for cell in row["cells"]]
        names = [escaped_markdown(row["set"]), escaped_markdown(row["variant"]), row["seeds"]]
        lines.append(f"| {' | '.join([*names, *cells])} |")
    note = f"Second line: difference to {escaped_markdown(baseline)} with its 95 % bootstrap interval over images"
    one = (
        " Where a row or its baseline has one seed, the difference may be the seed's."
        if any(row["seeds"] == "1" for row in rows)
        else ""
    )
    return "\n".join([*lines, "", f"±: standard deviation over seeds. {note}.{one}", ""])
