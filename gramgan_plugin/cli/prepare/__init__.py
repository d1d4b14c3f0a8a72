"""``basicsr prepare``: make and check data sets; each form has its own module."""

import argparse
import importlib

# Each is a module of this package with add_forms(forms), which sets `run`. None imports torch before it runs.
MODULES = ("pack", "benchmarks", "verify", "collect")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``prepare`` and its forms to the command's subparsers."""
    prepare = subparsers.add_parser(
        "prepare",
        help="make data sets: cut photos into an LMDB pair of GT and LQ sub-images",
        description="Make the data sets that training and testing read.",
    )
    forms = prepare.add_subparsers(dest="form", required=True, metavar="FORM")
    for name in MODULES:
        importlib.import_module(f"gramgan_plugin.cli.prepare.{name}").add_forms(forms)
