"""Write a report of measured models: a page in one file, tables for papers, and the values as data."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gramgan_plugin.evaluation.measure import SetResult, encode_png
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.published_scores import HEADINGS, PublishedScore, published_scores
from gramgan_plugin.evaluation.published_scores import SCALE as PUBLISHED_SCALE
from gramgan_plugin.evaluation.statistics import Difference, paired_difference
from gramgan_plugin.evaluation.tables import (
    ARROWS,
    LEGEND,
    latex_table,
    markdown_table,
    per_image_csv,
    result_tables,
)
from gramgan_plugin.evaluation.tradeoff_plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, tradeoff_plot
from gramgan_plugin.utils.io import replace_file, save_json
from gramgan_plugin.utils.pages import render_page
from gramgan_plugin.utils.pictures import Image, detailed_window
from gramgan_plugin.utils.text import printable

TEMPLATE = "report_template.html"
LONGEST_SIDE = 768  # of an embedded picture, in pixels; of a larger one the part with the most detail
CROP = 72  # side of a crop in pixels
MOST_BYTES = 40 * 2**20  # of all embedded pictures


@dataclass(frozen=True)
class ModelDifference:
    """The difference of a model to the baseline in one metric of one set.

    Attributes:
        model, dataset, metric: what was compared.
        baseline: the other model.
        difference: model - baseline; None if they have no image in common.
    """

    model: str
    dataset: str
    metric: str
    baseline: str
    difference: Difference | None


@dataclass(frozen=True)
class EmbeddedPicture:
    """Versions of one image, embedded in the page.

    Attributes:
        dataset, name: the image.
        width, height: of each version, in pixels.
        crop: left, top, width and height of the crop.
        versions: label -> data URL of a PNG.
        whole: whether it is all of the image.
        other_size: labels that were left out since their size differs from the last one's.
    """

    dataset: str
    name: str
    width: int
    height: int
    crop: tuple[int, int, int, int]
    versions: dict[str, str]
    whole: bool
    other_size: list[str]


def write_report(
    folder: Path,
    results: Sequence[SetResult],
    labels: Mapping[str, MetricLabel],
    *,
    facts: Mapping[str, Any],
    pictures: Mapping[str, Mapping[str, Mapping[str, Image]]],
    baseline: str | None = None,
    scale: int = PUBLISHED_SCALE,
) -> None:
    """Write ``index.html``, ``table.md``, ``table.tex``, ``per_image.csv`` and ``results.json``.

    Args:
        folder: gets the files; made if it is missing.
        results: one per model and set.
        labels: metric -> how to show it, in the order of the columns.
        facts: what else a reader needs, such as "protocol", "versions" and "hashes": heading -> text, a list of texts,
            or name -> text. They are JSON values.
        pictures: set -> image -> label -> (H, W, 3) uint8 BGR, GT last if there is one. Up to 40 MiB of them are
            embedded, one image of each set first; sets without results are left out.
        baseline: the model to which the others are compared; the first one if None.
        scale: of the models; published scores are shown only for x4.

    Raises:
        UserError: if a file cannot be written.
        ValueError: if there are no results, or a metric has no label.
    """
    if not results:
        raise ValueError("no results")
    baseline = baseline or results[0].model
    tables = result_tables(results, labels)
    compared = differences(results, [metric.name for metric in tables.metrics], baseline)
    embedded, left_out = _embedded({one.name: pictures[one.name] for one in tables.sets if one.name in pictures})
    published = {one.name: published_scores(one.name) if scale == PUBLISHED_SCALE else {} for one in tables.sets}
    page = _page(
        tables=tables,
        baseline=baseline,
        differences={(one.dataset, one.model, one.metric): one.difference for one in compared},
        plots={table.name: tradeoff_plot(tables, table, published[table.name]) for table in tables.sets},
        published=published,
        notes=_notes(published),
        problems={table.name: _problems(results, table.name) for table in tables.sets},
        pictures=embedded,
        left_out=left_out,
        facts=_fact_lists(facts),
    )
    data = {
        "rows": [row for result in results for row in result.rows()],
        "differences": [asdict(one) for one in compared],
        "metrics": [asdict(metric) for metric in tables.metrics],
        "facts": dict(facts),
    }
    save_json(data, folder / "results.json")
    replace_file(folder / "table.md", markdown_table(tables).encode())
    replace_file(folder / "table.tex", latex_table(tables).encode())
    replace_file(folder / "per_image.csv", per_image_csv(results).encode())
    replace_file(folder / "index.html", page)


def differences(results: Sequence[SetResult], metrics: Sequence[str], baseline: str) -> list[ModelDifference]:
    """Return the difference of each model to the baseline, on the images that both have, in each set and metric."""
    base = {result.dataset: result for result in results if result.model == baseline}
    found = []
    for result in results:
        if result.dataset not in base or result is base[result.dataset]:
            continue
        for metric in metrics:
            first, second = (one.per_image.get(metric, {}) for one in (result, base[result.dataset]))
            difference = paired_difference(first, second) if first.keys() & second.keys() else None
            found.append(ModelDifference(result.model, result.dataset, metric, baseline, difference))
    return found


def _problems(results: Sequence[SetResult], name: str) -> list[str]:
    lines = [(result.model, line) for result in results if result.dataset == name for line in result.problems()]
    return [f"{printable(model)}: {printable(line)}" for model, line in lines]


def _notes(published: Mapping[str, Mapping[str, Mapping[str, PublishedScore]]]) -> dict[str, list[str]]:
    """Return protocol and source -> the models that share them."""
    notes: dict[str, list[str]] = {}
    for models in published.values():
        for model, scores in models.items():
            for score in scores.values():
                names = notes.setdefault(f"{score.protocol}. From {score.source}.", [])
                names += [model] * (model not in names)
    return notes


def _fact_lists(facts: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return heading -> (name, text) of each fact; the name is empty for facts without one."""
    lists = {}
    for heading, value in facts.items():
        if isinstance(value, Mapping):
            lists[heading] = [(printable(str(name)), printable(str(text))) for name, text in value.items()]
        else:
            texts = value if isinstance(value, list | tuple) else [value]
            lists[heading] = [("", printable(str(text))) for text in texts]
    return lists


def _page(**values: Any) -> bytes:
    sides = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    constants = {"arrows": ARROWS, "legend": LEGEND, "headings": HEADINGS, **sides}
    return render_page("gramgan_plugin.evaluation", TEMPLATE, **constants, **values)


def _embedded(pictures: Mapping[str, Mapping[str, Mapping[str, Image]]]) -> tuple[list[EmbeddedPicture], list[str]]:
    """Return the pictures that fit in ``MOST_BYTES``, in the order of the sets, and the names of the others."""
    room = MOST_BYTES
    kept: list[EmbeddedPicture] = []
    left_out = []
    for dataset, name in _round_robin(pictures):
        if not pictures[dataset][name]:
            continue
        picture = _embed(dataset, name, pictures[dataset][name])
        size = sum(map(len, picture.versions.values()))
        if size > room:
            left_out.append(f"{dataset}: {name}")
            continue
        room -= size
        kept.append(picture)
    order = list(pictures)
    return sorted(kept, key=lambda picture: order.index(picture.dataset)), left_out


def _round_robin(pictures: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the first image of each set, then the second of each, and so on."""
    for names in zip_longest(*pictures.values()):
        yield from ((dataset, name) for dataset, name in zip(pictures, names, strict=True) if name is not None)


def _embed(dataset: str, name: str, images: Mapping[str, Image]) -> EmbeddedPicture:
    last = list(images.values())[-1]
    window = detailed_window(last, LONGEST_SIDE)
    shown = last[window]
    rows, columns = detailed_window(shown, CROP)
    crop = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
    versions = {label: _data_url(image[window], name) for label, image in images.items() if image.shape == last.shape}
    other_size = [label for label, image in images.items() if image.shape != last.shape]
    whole = shown.shape == last.shape
    return EmbeddedPicture(dataset, name, shown.shape[1], shown.shape[0], crop, versions, whole, other_size)


def _data_url(image: Image, name: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_png(image, Path(name))).decode()}"
