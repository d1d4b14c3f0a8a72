"""``basicsr check -opt FILE``."""

import argparse
from pathlib import Path
from typing import Any

from gramgan_plugin.cli.options import add_option_arguments, checked_options


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "check",
        help="check option files and the data that they name",
        description="Check option files as train and test do before they start: keys, types, values, sizes, files. "
        "Each mistake is one line; the exit code is 2 if there are any.",
    )
    add_option_arguments(parser)
    parser.add_argument("--no-files", action="store_true", help="do not check the files and folders named")
    parser.add_argument(
        "--resolve", type=Path, metavar="OUT", help="write one flat option file, which BasicSR's own loader reads, too"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the options, and print that there are no mistakes."""
    options = checked_options(arguments, with_files=not arguments.no_files)
    from gramgan_plugin.config.flat import write_flat
    from gramgan_plugin.utils.text import printable

    print(f"{printable(', '.join(arguments.opt))}: no mistakes found")
    if arguments.resolve is not None:
        write_flat(options, arguments.resolve)
        print(f"Written to {printable(str(arguments.resolve))}")
    return 0
