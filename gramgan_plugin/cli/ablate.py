"""Train variants of an option file, each with several seeds, and compare them in one report.

Each run is a training in a process and a folder of its own, experiments/NAME-VARIANT-sSEED. The same command again
resumes what was interrupted and repeats no finished run. Exit code 3: some runs have failed; the report has the rest.
75: stopped by a signal (Ctrl-C, SIGTERM, ...). docs/ablations.md describes the ablation file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from gramgan_plugin.cli.options import add_plugin_argument


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("ablate", help="train variants and compare them", description=__doc__)
    parser.add_argument(
        "-opt",
        "--opt",
        required=True,
        metavar="FILE",
        help="ablation file (YAML), in the working directory or in the package",
    )
    parser.add_argument(
        "-o", "--output", dest="out", type=Path, metavar="DIR", help="the report (default: results/NAME-ablation)"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of benchmark sets, instead of test.data")
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train the runs, write the report, and print its table."""
    import logging

    import basicsr  # noqa: F401  (its registries fill on import)

    from gramgan_plugin.ablation.run_ablation import run_ablation
    from gramgan_plugin.cli.failures import warn
    from gramgan_plugin.registries import load_plugins
    from gramgan_plugin.utils.text import printable

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    load_plugins(arguments.plugin)
    out, text, problems = run_ablation(
        arguments.opt,
        out=arguments.out,
        data=arguments.data,
        plugins=arguments.plugin,
        log=lambda line: print(printable(line), flush=True),
        warn=lambda line: warn("ablate", line),
    )
    encoding = sys.stdout.encoding or "utf-8"  # arrows are not in every one
    print("\n" + text.replace("<br>", "; ").encode(encoding, "replace").decode(encoding))
    for line in problems:
        print(printable(line))
    print(f"The report is {printable(str(out / 'index.html'))}")
    return 3 if problems else 0
