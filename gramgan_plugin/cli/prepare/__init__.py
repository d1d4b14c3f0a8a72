"""``basicsr prepare``: make and check data sets; each form has its own module."""

import argparse

from gramgan_plugin.cli.forms import add_command


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``prepare`` and its forms to the command's subparsers."""
    add_command(
        subparsers,
        __name__,
        ("pack", "benchmarks", "verify", "collect"),
        help="make data sets: cut photos into an LMDB pair of GT and LQ sub-images",
        description="Make the data sets that training and testing read.",
    )
