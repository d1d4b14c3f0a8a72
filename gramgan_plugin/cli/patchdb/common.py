"""What the forms of ``basicsr patchdb`` that make a database have in common."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gramgan_plugin.patchdb.making.build import Report

SOME_FAILED = 3
INDEXES = ("auto", "kdtree", "flat", "ivf", "hnsw")


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
    parser.add_argument("--recursive", action="store_true", help="take photos in subfolders, too")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: as many as processors)")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="for photos that cannot be decoded or are too small: write nothing, or skip them (exit code 3)",
    )


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add the option about the index."""
    parser.add_argument(
        "--index",
        choices=INDEXES,
        default="auto",
        help="the search index to make at once; auto is a k-d tree, made when training starts, for Gram matrices of "
        "RGB, and for longer vectors one of faiss, by their number (default: %(default)s)",
    )


def check_workers(workers: int | None) -> None:
    """Refuse a number of threads below 1.

    Raises:
        UserError: if it is.
    """
    from gramgan_plugin.errors import UserError

    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")


def make_index(path: Path, kind: str) -> None:
    """Make the index of a database that has just been written, and say what it is."""
    from gramgan_plugin.patchdb.index import build_index
    from gramgan_plugin.patchdb.store import open_store

    facts = build_index(open_store(path), kind)
    recall = facts.get("recall")
    print(f"  index: {facts.get('kind', kind)}" + (f", recall {recall}" if recall else ""))


def print_report(report: "Report") -> int:
    """Tell what was written.

    Returns:
        The exit code.
    """
    from gramgan_plugin.data.progress import printable
    from gramgan_plugin.patchdb.making.info import left_out

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
        print(f"  {report.repeated} photos were met again and not taken twice")
    if manifest["count"] < wanted:
        print(f"  the photos have no more; asked for were up to {wanted}")
    print(f"  fingerprint {manifest['fingerprint'][:16]}")
    return SOME_FAILED if report.skipped else 0
