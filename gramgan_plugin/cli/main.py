"""The ``basicsr`` command: run a subcommand, and turn an error into one line and an exit code."""

import argparse
import importlib
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gramgan_plugin.cli.failures import explain
from gramgan_plugin.utils.system import set_openmp
from gramgan_plugin.utils.text import printable, shortened
from gramgan_plugin.version import __version__

# Each is a module of this package with add_parser(subparsers), which sets `run`. None imports torch before it runs.
COMMANDS = (
    "quickstart",
    "train",
    "test",
    "upscale",
    "inspect",
    "convert",
    "interpolate",
    "compare",
    "benchmark",
    "ablate",
    "plot",
    "check",
    "schema",
    "prepare",
    "patchdb",
    "weights",
    "card",
    "list",
    "doctor",
    "completion",
)

BAD_INPUT = 2

DESCRIPTION = "Train and test super-resolution networks with BasicSR and the Gram-GAN plugin."


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="basicsr", description=DESCRIPTION)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the versions of the packages, and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"gramgan_plugin.cli.{name}").add_parser(commands)
    _add_verbose(parser, default=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the arguments after ``basicsr``; those of the process if None.

    Returns:
        The exit code: 0 done, 2 bad input, 3 some inputs failed, 4 training stopped itself, 75 training was stopped by
        a signal and can be resumed, 130 interrupted. A bug of ours raises.
    """
    arguments = build_parser().parse_args(argv)
    set_openmp()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print(f"basicsr {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has ended, such as `head`
        sys.stdout = None  # so that nothing is flushed at the end
        return 0
    except Exception as error:
        lines = explain(error, arguments.command)
        if lines is None or arguments.verbose:
            raise
        for line in lines:
            print(f"basicsr {arguments.command}: {printable(shortened(line))}", file=sys.stderr)
        return getattr(error, "exit_code", BAD_INPUT)


class _Version(argparse.Action):
    """Prints the versions in the packages' metadata, since importing torch takes seconds."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        basicsr, torch = (_installed(name) for name in ("basicsr", "torch"))
        python = platform.python_version()
        print(f"gramgan-plugin {__version__} (basicsr {basicsr}, torch {torch}, Python {python})")
        parser.exit()


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _add_verbose(parser: argparse.ArgumentParser, default: Any = argparse.SUPPRESS) -> None:
    """Add ``--verbose`` to a parser and its subparsers: it may be given before or after the subcommand.

    Only the outermost has a default, since a subparser's default would overwrite the given value.
    """
    parser.add_argument(
        "--verbose", action="store_true", default=default, help="show the traceback of an error instead of one line"
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _add_verbose(below)


if __name__ == "__main__":
    sys.exit(main())
