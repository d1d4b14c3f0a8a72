"""``basicsr quickstart``."""

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "quickstart",
        help="train and test a small Gram-GAN on sample photos, in a few minutes",
        description="Packs sample photos, trains a small L1 stage and a small Gram-GAN, tests both, and leaves the "
        "results under experiments/quickstart. Downloads nothing.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it all."""
    import basicsr  # noqa: F401  (its registries fill on import)

    from gramgan_plugin.quickstart import run_quickstart

    run_quickstart()
    return 0
