"""``basicsr patchdb``: databases of real textures; each form has its own module."""

import argparse
import importlib

# Each is a module of this package with add_forms(forms), which sets `run`. None imports torch before it runs.
MODULES = ("build", "update", "merge", "info", "search")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``patchdb`` and its forms to the command's subparsers."""
    patchdb = subparsers.add_parser(
        "patchdb",
        help="make and inspect databases of patches for gram_patch_opt.database",
        description="Make and inspect databases of patches of real photos for the patch-wise texture loss.",
    )
    forms = patchdb.add_subparsers(dest="form", required=True, metavar="FORM")
    for name in MODULES:
        importlib.import_module(f"gramgan_plugin.cli.patchdb.{name}").add_forms(forms)
