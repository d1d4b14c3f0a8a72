"""The common arguments and output of the forms of ``basicsr patchdb``."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gramgan_plugin.cli.photo_options import SOME_FAILED, add_reading
from gramgan_plugin.search.kinds import KINDS, new_name

if TYPE_CHECKING:
    from gramgan_plugin.patchdb.making.building import Report


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options about photos and how they are read."""
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        required=True,
        metavar="LMDB|DIR",
        help="an LMDB of GT, or a folder of photos; may be given several times",
    )
    parser.add_argument("--recursive", action="store_true", help="also read photos in subfolders")
    add_reading(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options about a new database's folder."""
    parser.add_argument("--out", type=Path, required=True, metavar="DB", help="folder to write, NAME.patchdb")
    parser.add_argument("--overwrite", action="store_true", help="replace DB once the new one is complete")


def add_making(parser: argparse.ArgumentParser) -> None:
    """Add the options of all forms that write a database: VGG's weights, and the index."""
    add_vgg_weights(parser)
    add_index(parser)


def add_vgg_weights(parser: argparse.ArgumentParser) -> None:
    """Add the option about the weights of features."""
    parser.add_argument(
        "--vgg-weights",
        metavar="FILE",
        help="VGG19's weights, for databases of features (default: those that the loss uses)",
    )


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add the option about the index."""
    parser.add_argument(
        "--index",
        type=index_kind,
        choices=KINDS,
        default="auto",
        help="the search index to make now; auto: for Gram matrices of RGB a k-d tree, which is made when training "
        "starts; for longer vectors exact or hnsw, depending on the number of patches (default: %(default)s)",
    )


def index_kind(text: str) -> str:
    """Return the kind of search that an option names; argparse reports unknown ones."""
    if new_name(text):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(KINDS)}, got {text!r}{new_name(text)}")
    return text


def finish(report: "Report", index: str) -> int:
    """Print what was written, make the database's index, and print what it is.

    Returns:
        The exit code.
    """
    from gramgan_plugin.patchdb.making.info import index_in_words, left_out
    from gramgan_plugin.patchdb.search import build_index
    from gramgan_plugin.patchdb.store import open_store
    from gramgan_plugin.utils.text import printable

    for name, reason in report.skipped:
        print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
    manifest = report.manifest
    counts, wanted = manifest["counts"], manifest["options"]["max_patches"]
    by_variant = counts["by_variant"].items()
    shares = ", ".join(f"{name} {100 * number / manifest['count']:.1f} %" for name, number in by_variant)
    new = "" if report.new == report.photos else f", {report.new} of them new"
    print(f"{printable(str(report.path))}: {manifest['count']} patches of {report.photos} photos{new}")
    print(f"  variants: {shares}")
    print(f"  {left_out(counts)}")
    if report.repeated:
        print(f"  {report.repeated} photos were there already and not added again")
    if manifest["count"] < wanted:
        print(f"  the photos have no more; up to {wanted} were requested")
    print(f"  fingerprint {manifest['fingerprint'][:16]}")
    print(f"  index: {index_in_words(build_index(open_store(report.path), index))}")
    return SOME_FAILED if report.skipped else 0
