"""``basicsr quickstart``: train and test a small Gram-GAN on sample photos."""

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "quickstart",
        help="train and test a small Gram-GAN on sample photos, in a few minutes",
        description="Pack sample photos, train a small Gram-GAN from 4x-RRDB-Lite, which comes with this package, test "
        "both, and write the results to experiments/quickstart. Nothing is downloaded.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the quickstart."""
    import basicsr  # noqa: F401  (its registries fill on import)

    from gramgan_plugin.quickstart import run_quickstart

    run_quickstart()
    return 0
