"""The arguments of all commands that read photos."""

import argparse

SOME_FAILED = 3  # exit code: done, but without some photos


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers`` and ``--on-error``."""
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one per processor)")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="for photos that cannot be decoded or are too small: write nothing, or skip them (exit code 3)",
    )
