"""Write results as tables: Markdown, LaTeX, and CSV with the values of each image."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.statistics import paired_difference
from gramgan_plugin.utils.text import printable, spreadsheet_cell

LEGEND = "the 95 % bootstrap interval of its paired difference to the best contains 0, or there is only one image"
ARROWS = {"higher": "↑", "lower": "↓"}
CSV_COLUMNS = ("set", "model", "metric", "image", "value", "left_out")


@dataclass(frozen=True)
class Cell:
    """A model's mean of a metric on a set.

    Attributes:
        value: the mean.
        text: the mean with the metric's decimals.
        n: number of images in the mean.
        place: 1 for the best of the set's models and those that print the same number, 2 for the second, 0 for others
            and where there is no other model.
        close: whether a model other than the best may be as good: the interval of the paired difference to the best
            contains 0, or there is none.
    """

    value: float
    text: str
    n: int
    place: int
    close: bool


@dataclass(frozen=True)
class SetTable:
    """The table of one set.

    Attributes:
        name: the set's name.
        lq: the kind of its LQ, in words.
        n: number of its images.
        rows: of each model its name and a cell per metric, None where nothing was measured.
    """

    name: str
    lq: str
    n: int
    rows: list[tuple[str, list[Cell | None]]]


@dataclass(frozen=True)
class ResultTables:
    """The tables of all sets.

    Attributes:
        metrics: the columns.
        sets: a table per set.
    """

    metrics: list[MetricLabel]
    sets: list[SetTable]


def result_tables(results: Sequence[SetResult], labels: Mapping[str, MetricLabel]) -> ResultTables:
    """Return the means of all results, with the best and second best of each set.

    Args:
        results: one per model and set.
        labels: metric -> how to show it, in the order of the columns; those that no result has are left out.

    Raises:
        ValueError: if a metric has no label.
    """
    measured = {metric for result in results for metric in result.per_image}
    if missing := sorted(measured - labels.keys()):
        raise ValueError(f"no label for {', '.join(missing)}")
    metrics = [label for name, label in labels.items() if name in measured]
    sets = []
    for name in dict.fromkeys(result.dataset for result in results):
        own = [result for result in results if result.dataset == name]
        images = {
            image
            for one in own
            for part in (one.per_image, one.left_out)
            for column in part.values()
            for image in column
        }
        columns = [_column(own, metric) for metric in metrics]
        rows = [(result.model, [column[i] for column in columns]) for i, result in enumerate(own)]
        sets.append(SetTable(name, own[0].lq, len(images), rows))
    return ResultTables(metrics, sets)


def _column(results: list[SetResult], label: MetricLabel) -> list[Cell | None]:
    values = [result.per_image.get(label.name, {}) for result in results]
    means = {i: result.means()[label.name] for i, result in enumerate(results) if values[i]}
    best = max(means, key=lambda i: label.score(means[i]), default=None)
    printed = sorted({label.score(float(label.text(mean))) for mean in means.values()}, reverse=True)
    cells: list[Cell | None] = []
    for i, images in enumerate(values):
        if best is None or i not in means:
            cells.append(None)
            continue
        place = printed.index(label.score(float(label.text(means[i])))) + 1
        common = images.keys() & values[best].keys()
        close = i != best and not (common and paired_difference(images, values[best]).significant)
        cells.append(
            Cell(means[i], label.text(means[i]), len(images), place if place < 3 and len(means) > 1 else 0, close)
        )
    return cells


def markdown_table(tables: ResultTables) -> str:
    """Return one Markdown table: a row per model and set, a column per metric.

    The best is bold, the second underlined; a dagger marks models that may be as good as the best.
    """
    if not tables.metrics:
        return "no metric was measured\n"
    headings = [f"{escaped_markdown(metric.heading)} {ARROWS[metric.better]}" for metric in tables.metrics]
    lines = [f"| set | n | model | {' | '.join(headings)} |", "|---|---:|---|" + "---:|" * len(headings)]
    for table in tables.sets:
        for model, cells in table.rows:
            texts = [_markdown_cell(cell, table.n) for cell in cells]
            lines.append(
                f"| {escaped_markdown(table.name)} | {table.n} | {escaped_markdown(model)} | {' | '.join(texts)} |"
            )
    lines += ["", "n: images. **Bold**: best; <u>underlined</u>: second; †: " + LEGEND + ".", ""]
    lines += [f"- LQ of {escaped_markdown(table.name)}: {escaped_markdown(table.lq)}" for table in tables.sets]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell | None, n: int) -> str:
    if cell is None:
        return ""
    text = {1: f"**{cell.text}**", 2: f"<u>{cell.text}</u>"}.get(cell.place, cell.text)
    return text + "†" * cell.close + (f" (n = {cell.n})" if cell.n != n else "")


def escaped_markdown(text: str) -> str:
    """Escape text; HTML entities also hold in Markdown that allows HTML."""
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", printable(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex_table(tables: ResultTables) -> str:
    r"""Return one LaTeX table in the style of booktabs, with ``\usepackage{booktabs}`` as all that it needs.

    The best is bold, the second underlined; a dagger marks models that may be as good as the best.
    """
    arrows = {"higher": r"$\uparrow$", "lower": r"$\downarrow$"}
    headings = [f"{_latex(metric.heading)} {arrows[metric.better]}" for metric in tables.metrics]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{Means over $n$ images. Bold: best; underlined: second; $^\dagger$: {_latex(LEGEND)}.}}",
        rf"  \begin{{tabular}}{{ll{'r' * len(headings)}}}",
        r"    \toprule",
        f"    {' & '.join(['Set', 'Model', *headings])} \\\\",
    ]
    for table in tables.sets:
        lines.append(r"    \midrule")
        for i, (model, cells) in enumerate(table.rows):
            name = f"{_latex(table.name)} ($n = {table.n}$)" if i == 0 else ""
            lines.append(
                f"    {' & '.join([name, _latex(model), *(_latex_cell(cell, table.n) for cell in cells)])} \\\\"
            )
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell | None, n: int) -> str:
    if cell is None:
        return "--"
    text = {1: rf"\textbf{{{cell.text}}}", 2: rf"\underline{{{cell.text}}}"}.get(cell.place, cell.text)
    return text + r"$^\dagger$" * cell.close + (f" ($n = {cell.n}$)" if cell.n != n else "")


LATEX = {
    **{character: f"\\{character}" for character in "{}$&#_%"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # No ligatures, and no optional argument of the row before.
    "`": "`{}",
    "'": "'{}",
    "[": "{[}",
    "]": "{]}",
}


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in printable(text))
    return re.sub("-(?=-)", "-{}", escaped)  # LaTeX makes a dash of --


def per_image_csv(results: Sequence[SetResult]) -> str:
    """Return a CSV table with a row per set, model, metric and image; names that a spreadsheet would run are escaped.

    Images that could not be measured have no value but a reason.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for result in results:
        for metric in dict.fromkeys([*result.per_image, *result.left_out]):
            values: dict[str, float | str] = dict(result.per_image.get(metric, {}))
            reasons = result.left_out.get(metric, {})
            for image in dict.fromkeys([*values, *reasons]):
                names = [spreadsheet_cell(printable(name)) for name in (result.dataset, result.model, metric, image)]
                writer.writerow([*names, values.get(image, ""), spreadsheet_cell(printable(reasons.get(image, "")))])
    return table.getvalue()
