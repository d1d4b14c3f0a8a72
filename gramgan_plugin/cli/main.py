"""The ``basicsr`` command: finds the subcommand, runs it, and turns errors into one line and an exit code."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from gramgan_plugin import __version__
from gramgan_plugin.errors import UserError

# Each is a module of this package with add_parser(subparsers), which sets `run`. None imports torch before it runs.
COMMANDS = ("quickstart", "train", "test", "prepare", "list")

DESCRIPTION = "Train and test super-resolution networks with BasicSR and the Gram-GAN plugin."


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="basicsr", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"gramgan-plugin {__version__}")
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error, too")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"gramgan_plugin.cli.{name}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the arguments after ``basicsr``; those of the process if None.

    Returns:
        The exit code: 0 done, 2 bad input, 3 some inputs failed, 130 interrupted. A bug of ours raises.
    """
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UserError as error:
        if arguments.verbose:
            raise
        for line in str(error).splitlines():
            print(f"basicsr {arguments.command}: {_printable(line)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"basicsr {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _printable(line: str) -> str:
    """Names of files and keys come from outside: no control characters to the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


if __name__ == "__main__":
    sys.exit(main())
