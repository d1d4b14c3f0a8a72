"""Say what a file of weights is: architecture, scale, format, averaging, iteration, metadata, damage, SHA-256."""

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("inspect", help="say what a file of weights is", description=__doc__)
    parser.add_argument("file", metavar="FILE", help="weights: a file, or a name of `basicsr weights list`")
    parser.add_argument("--param-key", metavar="KEY", help="key of the weights in FILE (default: averaged weights)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the description."""
    from gramgan_plugin.checkpoints.inspect_weights import describe_weights, weights_lines
    from gramgan_plugin.checkpoints.weights_cache import resolve_weights
    from gramgan_plugin.utils.io import as_line
    from gramgan_plugin.utils.text import printable

    facts = describe_weights(resolve_weights(arguments.file), arguments.param_key)
    if arguments.json:
        print(json.dumps(json.loads(as_line(facts)), indent=2))
    else:
        print(printable(str(facts["file"])))
        for line in weights_lines(facts):
            print(f"  {line}")
    return 0
