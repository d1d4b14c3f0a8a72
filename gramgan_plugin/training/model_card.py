"""Describe trained weights for others: a model card in Markdown, and OpenModelDB's JSON."""

import csv
import io
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.tables import ARROWS, escaped_markdown
from gramgan_plugin.utils.io import file_sha256, parse_json, read_lines
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import printable
from gramgan_plugin.utils.yaml_io import parse_yaml

# The names that OpenModelDB has for architectures, and how it writes their sizes.
ARCHITECTURES = {"RRDBNet": "esrgan", "SRVGGNetCompact": "compact"}
SIZES = {"num_feat": "nf", "num_block": "nb", "num_conv": "nc"}
MODEL_ID = re.compile(r"\d+x-[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*")
LARGEST_NUMBER = 10**12  # of iterations, images, seconds
LARGEST_FILE = 50 * 2**20  # of records and tables that are read whole


@dataclass(frozen=True)
class Statement:
    """What only its maker can say of a model.

    Attributes:
        name: such as ``4x-GramGAN-Lite``.
        authors: its makers, as OpenModelDB names users.
        licence: SPDX identifier of the weights' licence; None if it is not stated.
        about: a sentence or more: what it is for.
        limits: where it fails, in Markdown; None if it is not stated.
        date: of publication, ``yyyy-mm-dd``.
        urls: where the file can be downloaded.
        tags: OpenModelDB's tags.
    """

    name: str
    authors: Sequence[str]
    licence: str | None
    about: str
    limits: str | None
    date: str
    urls: Sequence[str] = ()
    tags: Sequence[str] = ("photo", "general-upscaler")


@dataclass(frozen=True)
class TrainingRecord:
    """What a run's folder says of its training.

    Attributes:
        folder: the run's.
        options: its resolved options.
        images: number of training images; None if it is not recorded.
        batch: images of an iteration on all processes; None if it is not recorded.
        devices: what it ran on.
    """

    folder: Path
    options: Mapping[str, Any]
    images: int | None = None
    batch: int | None = None
    devices: Sequence[str] = ()


@dataclass(frozen=True)
class Results:
    """The means of a benchmark.

    Attributes:
        labels: metric -> how it is shown.
        means: set, model -> metric -> mean over the set's images.
    """

    labels: Mapping[str, MetricLabel]
    means: Mapping[tuple[str, str], Mapping[str, float]]


@dataclass(frozen=True)
class Card:
    """What a model card says.

    Attributes:
        weights: of `describe_weights`.
        statement: what its maker says.
        training: its run's record; None without a run.
        iterations: after how many it was saved; None if that is not known.
        results: of a benchmark; None without one.
        sources: the rows of a table of photos, with the columns ``author`` and ``licence``.
    """

    weights: Mapping[str, Any]
    statement: Statement
    training: TrainingRecord | None = None
    iterations: int | None = None
    results: Results | None = None
    sources: Sequence[Mapping[str, str]] = field(default=())


def read_training(folder: Path) -> TrainingRecord:
    """Read the record of a run.

    Raises:
        UserError: if the folder has no options.yml, or a record is damaged.
    """
    options = parse_yaml(read_text(folder / "options.yml"), str(folder / "options.yml"))
    if not isinstance(options, dict):
        raise UserError(f"{folder / 'options.yml'}: not the options of a run")
    data = _json(folder / "data.json") if (folder / "data.json").is_file() else {}
    facts = _json(folder / "environment.json") if (folder / "environment.json").is_file() else {}
    batch, processes, devices = _whole(data.get("batch")), _whole(data.get("world_size", 1)), facts.get("devices")
    return TrainingRecord(
        folder,
        options,
        _whole(data.get("images")),
        batch * processes if batch and processes else None,
        [str(device) for device in devices] if isinstance(devices, list) else (),
    )


def read_results(path: Path) -> Results:
    """Read a benchmark's results.json.

    Raises:
        UserError: if it is something else.
    """
    content, means = _json(path), dict[tuple[str, str], dict[str, float]]()
    try:
        labels = {str(metric["name"]): MetricLabel(**metric) for metric in content["metrics"]}
        for label in labels.values():
            f"{ARROWS[label.better]} {label.heading} {label.text(0.0)}"
        for row in content["rows"]:
            if row["mean"] is not None and row["metric"] in labels:
                means.setdefault((str(row["set"]), str(row["model"])), {})[row["metric"]] = float(row["mean"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the results.json of `basicsr benchmark`") from error
    if not means:
        raise UserError(f"{path}: has no means; give the results.json of `basicsr benchmark`")
    return Results(labels, means)


def read_sources(path: Path) -> list[dict[str, str]]:
    """Read a CSV table of photos.

    Raises:
        UserError: if it has no columns ``author`` and ``licence``, or no rows.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV table: {error}") from error
    if not rows or not {"author", "licence"} <= rows[0].keys():
        raise UserError(f"{path}: expected a CSV table of photos with the columns `author` and `licence`")
    return rows


def trained_by(weights: Mapping[str, Any], training: TrainingRecord) -> int | None:
    """Return after how many iterations a run saved weights; None if it is not known.

    Args:
        weights: of `describe_weights`: a file of the run's ``models``, a copy, or the safetensors that `convert` wrote.
        training: the run's record.

    Raises:
        UserError: if the run has no such file.
    """
    source = weights["metadata"].get("source_sha256")  # of `convert`
    files = [path for path in sorted((training.folder / "models").glob("*")) if path.is_file()]
    if source is None:
        files = [path for path in files if path.stat().st_size == weights["size"]]
    found = [path for path in files if file_sha256(path) in (weights["sha256"], source)]
    if not found:
        raise UserError(f"--run: {training.folder / 'models'} does not have these weights; was it another run?")
    numbers = [int(saved[1]) for path in found if (saved := re.search(r"_(\d{1,9})$", path.stem))]
    if numbers:
        return min(numbers)
    if any(path.stem.endswith("_latest") for path in found):
        return _whole(section(training.options, "train").get("total_iter"))
    best = training.folder / "models/best.json"  # of net_g_best.pth
    return _whole(_json(best).get("iter")) if best.is_file() and found[0].stem.endswith("_best") else None


def model_card(card: Card) -> str:
    """Return the model card in Markdown."""
    return "\n".join(_blocks(card)).rstrip() + "\n"


def openmodeldb(card: Card) -> dict[str, Any]:
    """Return OpenModelDB's description; files are named by ``statement.urls``.

    Raises:
        UserError: if OpenModelDB could not take it: another form of name, or an architecture that it does not know.
    """
    weights, said = card.weights, card.statement
    if not MODEL_ID.fullmatch(said.name) or not said.name.startswith(f"{weights['scale']}x-"):
        raise UserError(f"--name: OpenModelDB wants {weights['scale']}x-WORD-WORD, not {said.name!r}")
    architecture = ARCHITECTURES.get(str(weights["architecture"]))
    if architecture is None:
        raise UserError(f"{weights['file']}: OpenModelDB's name of {weights['architecture']} is not known here")
    options = weights["options"] or {}
    entry: dict[str, Any] = {
        "name": said.name,
        "author": said.authors[0] if len(said.authors) == 1 else list(said.authors),
        "license": said.licence,
        "tags": list(said.tags),
        "description": said.about.strip() + (f"\n\n{said.limits.strip()}" if said.limits else ""),
        "date": said.date,
        "architecture": architecture,
        "size": [f"{options[key]}{unit}" for key, unit in SIZES.items() if key in options] or None,
        "scale": weights["scale"],
        "inputChannels": weights["in_channels"],
        "outputChannels": weights["out_channels"],
        "resources": [
            {
                "platform": "pytorch",
                "type": "safetensors" if str(weights["file"]).endswith(".safetensors") else "pth",
                "size": weights["size"],
                "sha256": weights["sha256"],
                "urls": list(said.urls),
            }
        ],
    }
    if card.training is not None:
        data = section(card.training.options, "datasets", "train")
        more = {
            "trainingIterations": card.iterations,
            "trainingBatchSize": card.training.batch or _whole(data.get("batch_size_per_gpu")),
            "trainingHRSize": _whole(data.get("gt_size")),
            "trainingOTF": data.get("type") == "RealESRGANDataset",
            "dataset": data.get("name") if isinstance(data.get("name"), str) else None,
            "datasetSize": card.training.images,
        }
        entry |= {key: value for key, value in more.items() if value is not None}
    return entry | {"images": []}


def _blocks(card: Card) -> Iterator[str]:
    weights, said = card.weights, card.statement
    options = ", ".join(f"{name} {value}" for name, value in (weights["options"] or {}).items())
    file = Path(str(weights["file"])).name
    yield f"# {escaped_markdown(said.name)}\n"
    yield said.about.strip() + "\n"
    rows: dict[str, str | None] = {
        "network": f"{weights['architecture']} x{weights['scale']}" + (f" ({options})" if options else ""),
        "parameters": f"{weights['parameters']:,d}",
        "file": f"{file}, {weights['size'] / 1e6:.1f} MB",
        "SHA-256": weights["sha256"],
        "weights": "averaged over training (EMA)" if weights["averaged"] else "not averaged",
        "licence": said.licence or "not stated",
        "by": ", ".join(said.authors),
        "date": said.date,
    }
    yield _table(rows)
    yield f"```\nbasicsr upscale PHOTO -m {shlex.quote(printable(file))} -o upscaled\n```\n"
    if card.training is not None:
        yield "## Training\n"
        yield _table(_training_rows(card))
    if card.sources:
        yield "## Photos\n"
        yield from _source_lines(card)
    if card.results is not None:
        yield "## Results\n"
        yield _results_table(card.results)
    yield "## Where it fails\n"
    yield (said.limits or "Not stated.").strip() + "\n"


def _training_rows(card: Card) -> dict[str, str | None]:
    assert card.training is not None
    options, train = card.training.options, section(card.training.options, "train")
    data, start = section(options, "datasets", "train"), section(options, "path").get("pretrain_network_g")
    blocks = [train[key] for key in train if str(key).endswith("_opt")] + [*section(train, "extra_terms").values()]
    rates = [f"{name} {section(train, name).get('lr')}" for name in ("optim_g", "optim_d") if section(train, name)]
    hours = _hours(card.training.folder / "metrics.jsonl", card.iterations)
    facts = {
        "data": data.get("name"),
        "images": card.training.images,
        "crops": f"{data['gt_size']} pixels" if "gt_size" in data else None,
        "iterations": card.iterations,
        "batch": card.training.batch or data.get("batch_size_per_gpu"),
        "start": _start(Path(str(start))) if start else "random weights",
        "losses": ", ".join(filter(None, map(_loss, blocks))),
        "learning rate": ", ".join(rates),
        "schedule": section(train, "scheduler").get("type"),
        "decay of the average": train.get("ema_decay"),
        "seed": options.get("manual_seed"),
        "devices": ", ".join(card.training.devices),
        "time": None if hours is None else f"{hours:.1f} hours",
    }
    return {name: None if value in (None, "") else str(value) for name, value in facts.items()}


def _start(path: Path) -> str:
    """Return a file's name, with its run's.

    >>> _start(Path("weights/a.pth")), _start(Path("experiments/mine/models/net_g_latest.pth"))
    ('a.pth', 'net_g_latest.pth of mine')
    """
    return f"{path.name} of {path.parent.parent.name}" if path.parent.name == "models" else path.name


def _loss(block: Any) -> str | None:
    """Return the name and weight of a loss; None if it is off."""
    if not isinstance(block, Mapping):
        return None
    weights = [block.get("perceptual_weight", 1), block.get("style_weight", 0)]  # of BasicSR's PerceptualLoss
    if "loss_weight" in block or block.get("type") != "PerceptualLoss":
        weights = [block.get("loss_weight", 1)]
    shown = " and ".join(f"{weight}" for weight in weights if weight)
    return f"{block.get('type')} x {shown}" if shown else None


def _source_lines(card: Card) -> Iterator[str]:
    counts = Counter(row["licence"] or "not stated" for row in card.sources)
    yield f"{len(card.sources)} photos; {photos_file(card)} has the author and the licence of each.\n"
    yield "| licence | photos |\n|---|---:|"
    yield from (f"| {escaped_markdown(name)} | {count} |" for name, count in counts.most_common())
    yield ""


def photos_file(card: Card) -> str:
    """Return the name under which the table of photos lies beside the card."""
    return f"{card.statement.name}-photos.csv"


def _results_table(results: Results) -> str:
    heads = [f"{escaped_markdown(label.heading)} {ARROWS[label.better]}" for label in results.labels.values()]
    lines = [f"| set | model | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    for (dataset, model), own in results.means.items():
        values = [label.text(own[name]) if name in own else "" for name, label in results.labels.items()]
        lines.append(f"| {escaped_markdown(dataset)} | {escaped_markdown(model)} | {' | '.join(values)} |")
    return "\n".join([*lines, ""])


def _table(rows: Mapping[str, str | None]) -> str:
    cells = [f"| {name} | {escaped_markdown(value)} |" for name, value in rows.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *cells, ""])


def _hours(path: Path, until: int | None) -> float | None:
    """Return the time of the iterations of metrics.jsonl, of which each line has the seconds of one."""
    seconds, last = 0.0, 0
    for _, record in read_lines(path) if path.is_file() else ():
        end, each = _whole(record.get("iter")), record.get("time")
        if end is not None and isinstance(each, int | float) and 0 <= each < LARGEST_NUMBER:
            end = end if until is None else min(end, until)
            seconds += each * max(0, end - last)
            last = max(last, end)
    return seconds / 3600 if last else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_NUMBER else None


def read_text(path: Path) -> str:
    """Read a text in UTF-8 of a regular file.

    Raises:
        UserError: if it is something else, or larger than ``LARGEST_FILE``.
    """
    with file_errors(path):
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {LARGEST_FILE >> 20} MB, which no such file is")
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not a text in UTF-8") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a JSON object")
    return found
