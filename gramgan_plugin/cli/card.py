"""Write a model card for weights, and the description that OpenModelDB takes."""

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("card", help="write a model card for weights", description=__doc__)
    parser.add_argument("weights", metavar="WEIGHTS", help="a file, or a name of `basicsr weights list`")
    parser.add_argument("--name", required=True, metavar="NAME", help="of the model, such as 4x-GramGAN-Lite")
    parser.add_argument("--author", action="append", required=True, metavar="NAME", help="may be given several times")
    parser.add_argument("--about", required=True, metavar="TEXT", help="what it is for")
    parser.add_argument("--limits", type=Path, metavar="FILE", help="a text in Markdown: where it fails")
    parser.add_argument("--licence", metavar="SPDX", help="of the weights, such as CC-BY-SA-4.0")
    parser.add_argument("--run", dest="training", type=Path, metavar="DIR", help="the run's folder in experiments")
    parser.add_argument("--results", type=Path, metavar="JSON", help="results.json of `basicsr benchmark`")
    parser.add_argument("--sources", type=Path, metavar="CSV", help="a table of the training photos: author, licence")
    parser.add_argument("--url", action="append", default=[], metavar="URL", help="where the file can be downloaded")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="of publication (default: today)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of NAME.md and NAME.json")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write both files, and print their names."""
    from gramgan_plugin.checkpoints.inspect_weights import describe_weights
    from gramgan_plugin.checkpoints.weights_cache import resolve_weights
    from gramgan_plugin.errors import UserError, file_errors
    from gramgan_plugin.training.model_card import (
        Card,
        Statement,
        model_card,
        openmodeldb,
        photos_file,
        read_results,
        read_sources,
        read_text,
        read_training,
        trained_by,
    )
    from gramgan_plugin.utils.io import replace_file
    from gramgan_plugin.utils.text import printable

    weights = describe_weights(resolve_weights(arguments.weights))
    if weights["scale"] is None:
        raise UserError(f"{arguments.weights}: not the weights of a network that upscales")
    if weights["non_finite"] is not None:
        raise UserError(f"{arguments.weights}: {weights['non_finite']} holds values that are not finite")
    limits = None if arguments.limits is None else read_text(arguments.limits)
    statement = Statement(
        arguments.name, arguments.author, arguments.licence, arguments.about, limits, _date(arguments), arguments.url
    )
    training = None if arguments.training is None else read_training(arguments.training)
    card = Card(
        weights,
        statement,
        training,
        None if training is None else trained_by(weights, training),
        None if arguments.results is None else read_results(arguments.results),
        () if arguments.sources is None else read_sources(arguments.sources),
    )
    entry = openmodeldb(card)  # first, since it may refuse the name
    with file_errors(arguments.out):
        arguments.out.mkdir(parents=True, exist_ok=True)
    replace_file(arguments.out / f"{arguments.name}.md", model_card(card).encode(errors="backslashreplace"))
    replace_file(arguments.out / f"{arguments.name}.json", (json.dumps(entry, indent=4) + "\n").encode())
    if arguments.sources is not None:
        replace_file(arguments.out / photos_file(card), arguments.sources.read_bytes())
    print(printable(f"{arguments.out / arguments.name}.md and .json"))
    return 0


def _date(arguments: argparse.Namespace) -> str:
    from datetime import date

    from gramgan_plugin.errors import UserError

    try:
        return (date.fromisoformat(arguments.date) if arguments.date else date.today()).isoformat()
    except ValueError as error:
        raise UserError(f"--date: expected YYYY-MM-DD, not {arguments.date!r}") from error
