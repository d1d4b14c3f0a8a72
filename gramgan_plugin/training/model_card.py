"""Describe trained weights for others: a model card in Markdown, and OpenModelDB's JSON."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.tables import ARROWS, escaped_markdown
from gramgan_plugin.utils.io import parse_json
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.yaml_io import parse_yaml

# The names that OpenModelDB has for architectures, and how it writes their sizes.
ARCHITECTURES = {"RRDBNet": "esrgan", "SRVGGNetCompact": "compact"}
SIZES = {"num_feat": "nf", "num_block": "nb", "num_conv": "nc"}
MODEL_ID = re.compile(r"\d+x-[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*")
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
        options: the run's resolved options.
        images: number of training images; None if it is not recorded.
        hours: time of all iterations; None if it is not recorded.
        devices: what it ran on.
    """

    options: Mapping[str, Any]
    images: int | None = None
    hours: float | None = None
    devices: Sequence[str] = ()


@dataclass(frozen=True)
class Card:
    """All that a model card is made of.

    Attributes:
        weights: of `describe_weights`.
        statement: what its maker says.
        training: its run's record; None without a run.
        results: the content of a benchmark's results.json; None without one.
        sources: the rows of a table of photos, with a column ``licence`` or ``license``.
    """

    weights: Mapping[str, Any]
    statement: Statement
    training: TrainingRecord | None = None
    results: Mapping[str, Any] | None = None
    sources: Sequence[Mapping[str, str]] = field(default=())


def read_training(folder: Path) -> TrainingRecord:
    """Read the record of a run.

    Raises:
        UserError: if the folder has no options.yml, or a record is damaged.
    """
    options = parse_yaml(_text(folder / "options.yml"), str(folder / "options.yml"))
    if not isinstance(options, dict):
        raise UserError(f"{folder / 'options.yml'}: not the options of a run")
    data = _json(folder / "data.json") if (folder / "data.json").is_file() else {}
    facts = _json(folder / "environment.json") if (folder / "environment.json").is_file() else {}
    images, devices = data.get("images"), facts.get("devices")
    return TrainingRecord(
        options,
        images if isinstance(images, int) else None,
        _hours(folder / "metrics.jsonl"),
        [str(device) for device in devices] if isinstance(devices, list) else (),
    )


def read_results(path: Path) -> dict[str, Any]:
    """Read a benchmark's results.json.

    Raises:
        UserError: if it is something else.
    """
    found = _json(path)
    if not isinstance(found.get("rows"), list) or not isinstance(found.get("metrics"), list):
        raise UserError(f"{path}: not the results.json of `basicsr benchmark`")
    return found


def read_sources(path: Path) -> list[dict[str, str]]:
    """Read a CSV table of photos.

    Raises:
        UserError: if it has no column ``licence`` or ``license``, or no rows.
    """
    rows = list(csv.DictReader(io.StringIO(_text(path))))
    if not rows or not {"licence", "license"} & rows[0].keys():
        raise UserError(f"{path}: expected a CSV table of photos with a column `licence`")
    return rows


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
            "trainingIterations": _iterations(card),
            "trainingBatchSize": data.get("batch_size_per_gpu"),
            "trainingHRSize": data.get("gt_size"),
            "trainingOTF": data.get("type") == "RealESRGANDataset",
            "dataset": data.get("name"),
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
    rows = {
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
    yield f"```\nbasicsr upscale PHOTO -m {file} -o upscaled\n```\n"
    if card.training is not None:
        yield "## Training\n"
        yield _table(_training_rows(card))
    if card.sources:
        yield "## Photos\n"
        yield from _source_lines(card.sources)
    if card.results is not None:
        yield "## Results\n"
        yield _results_table(card.results)
    yield "## Where it fails\n"
    yield (said.limits or "Not stated.").strip() + "\n"


def _training_rows(card: Card) -> dict[str, str]:
    assert card.training is not None
    options, train = card.training.options, section(card.training.options, "train")
    data, blocks = section(options, "datasets", "train"), {}
    for key, block in train.items():
        if key.endswith("_opt") and isinstance(block, Mapping):
            blocks[key] = block
    for key, block in section(train, "extra_terms").items():
        if isinstance(block, Mapping):
            blocks[str(key)] = block
    rates = [f"{name} {section(train, name).get('lr')}" for name in ("optim_g", "optim_d") if train.get(name)]
    schedule = section(train, "scheduler")
    start = section(options, "path").get("pretrain_network_g")
    images = card.training.images or "unknown"
    rows = {
        "data": f"{data.get('name')}: {images} images, crops of {data.get('gt_size')} pixels",
        "iterations": f"{_iterations(card) or 'unknown'}, batch {data.get('batch_size_per_gpu')}",
        "start": Path(str(start)).name if start else "random weights",
        "losses": ", ".join(f"{block.get('type')} x {block.get('loss_weight', 1)}" for block in blocks.values()),
        "learning rate": f"{', '.join(rates)}; {schedule.get('type')}",
        "average": f"decay {train.get('ema_decay')}" if train.get("ema_decay") else "none",
        "seed": str(options.get("manual_seed")),
        "device": ", ".join(card.training.devices) or "not recorded",
    }
    if card.training.hours is not None:
        rows["time"] = f"{card.training.hours:.1f} hours"
    return {name: escaped_markdown(value) for name, value in rows.items()}


def _source_lines(sources: Sequence[Mapping[str, str]]) -> Iterator[str]:
    counts = Counter(str(row.get("licence") or row.get("license") or "not stated") for row in sources)
    yield f"{len(sources)} photos; the table beside this card has the author and the licence of each.\n"
    yield "| licence | photos |\n|---|---:|"
    yield from (f"| {escaped_markdown(name)} | {count} |" for name, count in counts.most_common())
    yield ""


def _results_table(results: Mapping[str, Any]) -> str:
    labels = {metric["name"]: MetricLabel(**metric) for metric in results["metrics"]}
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for row in results["rows"]:
        if row.get("mean") is not None and row["metric"] in labels:
            cells.setdefault((row["set"], row["model"]), {})[row["metric"]] = row["mean"]
    heads = [f"{escaped_markdown(label.heading)} {ARROWS[label.better]}" for label in labels.values()]
    lines = [f"| set | model | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    for (dataset, model), own in cells.items():
        values = [labels[name].text(own[name]) if name in own else "" for name in labels]
        lines.append(f"| {escaped_markdown(dataset)} | {escaped_markdown(model)} | {' | '.join(values)} |")
    return "\n".join([*lines, ""])


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""])


def _iterations(card: Card) -> int | None:
    own = card.weights["iteration"]
    total = section(card.training.options, "train").get("total_iter") if card.training is not None else None
    return own if isinstance(own, int) else total if isinstance(total, int) else None


def _hours(path: Path) -> float | None:
    """Return the time of all iterations of metrics.jsonl, of which each line has the seconds of one."""
    seconds, last = 0.0, 0
    for line in _text(path).splitlines() if path.is_file() else []:
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("time"), float) and isinstance(record.get("iter"), int):
            seconds += record["time"] * max(0, record["iter"] - last)
            last = max(last, record["iter"])
    return seconds / 3600 if last else None


def _text(path: Path) -> str:
    with file_errors(path):
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: larger than {LARGEST_FILE >> 20} MB, which no such file is")
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not a text in UTF-8") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a JSON object")
    return found
