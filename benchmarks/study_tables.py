"""Print further tables of the study in docs/evidence.md, and draw its plot without the variants that lie far away.

    python benchmarks/study_tables.py results/lite-ablation experiments docs/images/study_near.png

Differences to `centred`, from which single terms were taken away; each seed's means; gradients at SR and D's loss.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from gramgan_plugin.ablation.ablation_tradeoff import tradeoff_figure
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.over_seeds import OverSeeds
from gramgan_plugin.evaluation.statistics import paired_difference

METRICS = {"psnr_y": 2, "niqe": 2, "texture": 4}
FAR = ("start", "esrgan", "pixel_loss", "without_perceptual")


def main() -> None:
    report, experiments = Path(sys.argv[1]), Path(sys.argv[2])
    data = json.loads((report / "results.json").read_text())
    summary = [OverSeeds(**row) for row in data["over_seeds"]]
    trained = [name for name in dict.fromkeys(row.variant for row in summary) if name not in ("bicubic", "start")]
    print("\n## Differences to centred\n")
    print("| set | variant | " + " | ".join(METRICS) + " |\n|---|---|" + "---|" * len(METRICS))
    for dataset in dict.fromkeys(row.dataset for row in summary):
        for variant in trained:
            if variant != "centred":
                cells = [_difference(data["rows"], dataset, variant, metric) for metric in METRICS]
                print(f"| {dataset} | {variant} | " + " | ".join(cells) + " |")
    print("\n## Each seed\n")
    print("| set | variant | " + " | ".join(METRICS) + " |\n|---|---|" + "---|" * len(METRICS))
    for dataset in dict.fromkeys(row.dataset for row in summary):
        for variant in trained:
            found = {row.metric: row for row in summary if (row.dataset, row.variant) == (dataset, variant)}
            if len(found["niqe"].per_seed) > 1:
                cells = [
                    ", ".join(f"{value:.{digits}f}" for value in found[metric].per_seed.values())
                    for metric, digits in METRICS.items()
                ]
                print(f"| {dataset} | {variant} | " + " | ".join(cells) + " |")
    print("\n## Gradients at SR, in parts of the content loss's, and D's loss\n")
    print("Medians of the lines after iteration 300, first seed.\n")
    terms = ("percep", "gram", "dp", "gan", "bp")
    print("| variant | " + " | ".join(terms) + " | D's loss | l_d_penalty |\n|---|" + "---:|" * (len(terms) + 2))
    for variant in trained:
        print(f"| {variant} | " + " | ".join(_log(experiments / f"lite-{variant}-s0/metrics.jsonl", terms)) + " |")
    labels = {metric["name"]: MetricLabel(**metric) for metric in data["metrics"]}
    near = [row for row in summary if row.variant not in ("bicubic", *FAR)]
    tradeoff_figure(near, labels, "psnr_y", ["texture", "niqe"]).savefig(sys.argv[3], metadata={"Software": None})


def _difference(rows: list[dict[str, Any]], dataset: str, variant: str, metric: str) -> str:
    one, two = (_per_image(rows, dataset, name, metric) for name in (variant, "centred"))
    found, digits = paired_difference(one, two), METRICS[metric]
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def _per_image(rows: list[dict[str, Any]], dataset: str, variant: str, metric: str) -> dict[str, float]:
    """Return each image's mean over the seeds."""
    of = [row for row in rows if (row["set"], row["variant"], row["metric"]) == (dataset, variant, metric)]
    return {name: statistics.fmean(row["per_image"][name] for row in of) for name in of[0]["per_image"]}


def _log(path: Path, terms: tuple[str, ...]) -> list[str]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line for line in lines if "grad_g_pix" in line and line["iter"] > 300]
    ratios = [
        f"{statistics.median(line[f'grad_g_{term}'] / line['grad_g_pix'] for line in lines):.2g}"
        if f"grad_g_{term}" in lines[0]
        else "-"
        for term in terms
    ]
    loss = statistics.median(line["l_d_real"] + line["l_d_fake"] for line in lines)
    return [*ratios, f"{loss:.2f}", f"{statistics.median(line['l_d_penalty'] for line in lines):.2f}"]


if __name__ == "__main__":
    main()
