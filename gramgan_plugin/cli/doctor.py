"""``basicsr doctor``: check versions, devices, weights and disks; report what is wrong, why, and what to do."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gramgan_plugin.cli.options import add_plugin_argument
from gramgan_plugin.errors import OptionError, UserError

if TYPE_CHECKING:
    from gramgan_plugin.diagnostics.diagnosis import Finding

BAD_INPUT = 2


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "doctor", help="check this machine: what a run needs, what is wrong, and what to do", description=__doc__
    )
    parser.add_argument(
        "-opt",
        "--opt",
        action="append",
        default=[],
        metavar="FILE",
        help="also check what this option file needs; several files are merged as for training",
    )
    add_plugin_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="check as if started in this folder")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check this machine and print the findings.

    Returns:
        0, or 2 if there is a problem.
    """
    if not arguments.dir.is_dir():
        raise UserError(f"--dir {arguments.dir}: no such folder")
    # Packages may print while they are imported; that does not belong to the report.
    with chdir(arguments.dir), redirect_stdout(sys.stderr):
        sections = _examine(arguments)
    levels = [finding.level for members in sections.values() for finding in members]
    problems, warnings = levels.count("problem"), levels.count("warning")  # type: ignore[arg-type]
    if arguments.json:
        data = {name: [asdict(finding) for finding in members] for name, members in sections.items()}
        print(json.dumps({"problems": problems, "warnings": warnings, "sections": data}, indent=2))
    else:
        _print_report(sections)
        print(f"\n{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}")
    return BAD_INPUT if problems else 0


def _examine(arguments: argparse.Namespace) -> "dict[str, list[Finding]]":
    from gramgan_plugin.diagnostics import hardware, software, storage, weights
    from gramgan_plugin.diagnostics.diagnosis import examine

    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "software": software.packages,
        "devices": hardware.devices,
        "weights": weights.vgg19,
        "disks": storage.working_directory,
        "runs": storage.runs,
    }
    if arguments.opt:
        checks["options"] = lambda: _option_files(arguments)
    sections = {name: examine(name, check) for name, check in checks.items()}
    return {name: members for name, members in sections.items() if members}


def _option_files(arguments: argparse.Namespace) -> "Iterator[Finding]":
    """Yield the problems of the option files, and the places of their data and weights."""
    from gramgan_plugin.diagnostics.diagnosis import ok, problem, warning
    from gramgan_plugin.diagnostics.storage import dataroots
    from gramgan_plugin.diagnostics.weights import named_weights

    try:
        import basicsr  # noqa: F401  (its registries fill on import)

        from gramgan_plugin.config.check import check_options
        from gramgan_plugin.config.file_checks import check_files
        from gramgan_plugin.config.load import load_options
        from gramgan_plugin.registries import load_plugins
    except Exception as error:  # the problem is reported under `software`
        fact = f"not checked: {type(error).__name__}: {error}"
        yield problem("option file", fact, "its check needs BasicSR", "fix the packages first")
        return
    options: dict[str, Any] = {}
    try:
        load_plugins(arguments.plugin)
        options = load_options(arguments.opt)
        for line in check_options(options):
            yield warning("option file", line, "it has no effect as it is", "correct or remove it")
        for line in check_files(options):
            yield warning("option file", line, "a run skips it or fails at it", "fix what the line names")
        yield ok("option file", f"{' and '.join(arguments.opt)}: nothing to correct")
    except OptionError as error:
        for line in str(error).splitlines():
            yield problem("option file", line, "a run with it stops before it begins", "correct what the line names")
    yield from dataroots(options)
    yield from named_weights(options)


def _print_report(sections: "dict[str, list[Finding]]") -> None:
    from gramgan_plugin.utils.text import printable

    for name, members in sections.items():
        print(f"{name}:")
        for finding in members:
            print(f"  {finding.level:8} {finding.topic}: {printable(finding.fact)}")
            if finding.reason:
                print(f"  {'':8}   why: {printable(finding.reason)}")
                print(f"  {'':8}   cure: {printable(finding.cure)}")


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
