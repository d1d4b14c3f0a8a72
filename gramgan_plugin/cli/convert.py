"""Convert a file of weights between BasicSR's format and those of other programs, to safetensors, or to ONNX."""

import argparse
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.formats import TARGETS


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("convert", help="convert a file of weights to another format", description=__doc__)
    parser.add_argument("file", metavar="FILE", help="weights: a file, or a name of `basicsr weights list`")
    parser.add_argument("--to", required=True, choices=TARGETS, help="the format to write")
    parser.add_argument("-o", "--out", metavar="OUT", help="the file to write (default: beside FILE)")
    parser.add_argument("--param-key", metavar="KEY", help="key of the weights in FILE (default: averaged weights)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert the file, and print one line."""
    from gramgan_plugin.checkpoints.convert import SUFFIXES, convert_weights
    from gramgan_plugin.checkpoints.weights_cache import resolve_weights
    from gramgan_plugin.errors import UserError
    from gramgan_plugin.utils.text import printable

    source = resolve_weights(arguments.file)
    to = arguments.to
    suffix = SUFFIXES.get(to, ".pth")
    out = Path(arguments.out) if arguments.out else source.with_name(f"{source.stem}_{to}{suffix}")
    if out.exists() and out.samefile(source):
        raise UserError(f"{out}: is the file to convert; name another with -o")
    print(printable(convert_weights(source, to, out, arguments.param_key)))
    return 0
