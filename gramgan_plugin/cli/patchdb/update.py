"""``basicsr patchdb update``: add photos to a database."""

import argparse
from pathlib import Path

from gramgan_plugin.cli.patchdb.common import add_making, add_sources, finish


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``update`` to the forms of ``patchdb``."""
    parser = forms.add_parser(
        "update",
        help="add photos to a database",
        description="Add photos to a database, with the settings that it was built with. The result is the same as "
        "building it from all the photos; those already in it are recognized by their pixels. The old version stays "
        "until the new one is complete.",
    )
    parser.add_argument("database", type=Path, metavar="DB", help="the database")
    add_sources(parser)
    parser.add_argument("--max-patches", type=int, metavar="N", help="maximum number of patches (default: as before)")
    add_making(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Add the photos and print what was written.

    Returns:
        0, or 3 if photos were skipped.

    Raises:
        UserError: for bad input.
    """
    from gramgan_plugin.patchdb.making.building import update
    from gramgan_plugin.patchdb.making.source_photos import Reading

    report = update(
        args.database,
        args.source,
        max_patches=args.max_patches,
        vgg_weights=args.vgg_weights,
        reading=Reading(args.recursive, args.on_error, args.workers),
    )
    return finish(report, args.index)
