"""``basicsr patchdb merge``: merge several databases into one."""

import argparse
from pathlib import Path

from gramgan_plugin.cli.patchdb.common import add_making, add_output, finish


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``merge`` to the forms of ``patchdb``."""
    parser = forms.add_parser(
        "merge",
        help="merge databases",
        description="Merge databases of the same patch size and Gram matrices into a new one. Of nearly equal patches, "
        "one is kept.",
    )
    parser.add_argument("databases", type=Path, nargs="+", metavar="DB", help="two or more databases")
    add_output(parser)
    parser.add_argument("--max-patches", type=int, metavar="N", help="maximum number of patches (default: all)")
    add_making(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge the databases and print what was written.

    Raises:
        UserError: for bad input.
    """
    from gramgan_plugin.patchdb.making.building import merge

    report = merge(
        args.databases,
        args.out,
        max_patches=args.max_patches,
        vgg_weights=args.vgg_weights,
        overwrite=args.overwrite,
    )
    return finish(report, args.index)
