"""``basicsr patchdb``: databases of real textures; each form has its own module."""

import argparse

from gramgan_plugin.cli.forms import add_command


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``patchdb`` and its forms to the command's subparsers."""
    add_command(
        subparsers,
        __name__,
        ("build", "update", "merge", "info", "search"),
        help="make and inspect databases of patches for gram_patch_opt.database",
        description="Make and inspect databases of patches of real photos for the patch-wise texture loss.",
    )
