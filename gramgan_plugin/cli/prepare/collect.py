"""``basicsr prepare collect``: collect photos and drop those that are unsuitable for training."""

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gramgan_plugin.cli.photo_options import SOME_FAILED

if TYPE_CHECKING:
    from gramgan_plugin.prepare.collect.collector import Outcome

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``collect`` to the forms of ``prepare``."""
    collect = forms.add_parser(
        "collect",
        help="collect photos from folders, archives and lists of URLs; drop those unsuitable for training",
        description="Collect photos into DIR/photos; DIR/report.html and DIR/collected.jsonl have the reason for each "
        "dropped one. Run again to resume; with other limits, photos are sorted again but not measured again.",
    )
    collect.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SRC",
        help="a folder with its subfolders, a zip or tar archive, a photo, or a text file of URLs: one a line, or "
        "CSV or TSV with a header url,source,licence",
    )
    collect.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write or resume")
    _add_limits(collect.add_argument_group("what is dropped", "A number, or `off`."))
    _add_network(collect.add_argument_group("downloads"))
    collect.add_argument("--licence", default="", metavar="TEXT", help="licence of photos for which no list names one")
    collect.add_argument(
        "--strip-metadata",
        action="store_true",
        help="remove places, cameras and names from copied photos; those rewritten as PNG never have them",
    )
    collect.add_argument(
        "--workers", type=_count, metavar="N", help="threads (default: one per processor); the result is the same"
    )
    collect.add_argument(
        "--report-photos", type=_count, default=100, metavar="N", help="shown of each kind (default: %(default)s)"
    )
    collect.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="skip",
        help="for what cannot be downloaded, read or decoded: stop, or skip it (default: %(default)s)",
    )
    collect.set_defaults(run=run)


def _add_limits(group: "argparse._ArgumentGroup") -> None:
    for name, kind, default, text in (
        ("--min-side", int, 480, "photos whose shorter side has fewer pixels"),
        ("--min-sharpness", float, 0.45, "blurred ones: 0 to 1, measured in the sharpest fifth of a photo"),
        ("--max-spectral-drop", float, 1.6, "enlarged ones: powers of ten by which high frequencies are weaker"),
        ("--min-jpeg-quality", int, 75, "JPEGs whose tables are those of a lower quality, 1 to 100"),
        ("--max-blockiness", float, 0.85, "those that were once such JPEGs: levels at borders of 8x8 blocks"),
        ("--hash-distance", int, 6, "near-duplicates, of which the largest stays: bits of 64 that may differ"),
    ):
        group.add_argument(
            name, type=_or_off(kind), default=default, metavar="X", help=f"{text} (default: %(default)s)"
        )


def _add_network(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--max-bytes", type=_size, default="200M", metavar="SIZE", help="of one file (default: %(default)s)"
    )
    group.add_argument(
        "--max-total", type=_size, default="100G", metavar="SIZE", help="of DIR/downloads (default: %(default)s)"
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds without a response, or with less than 1000 bytes/s (default: %(default)g)",
    )
    group.add_argument(
        "--retries", type=int, default=3, metavar="N", help="retries, with a longer wait before each (default: 3)"
    )
    group.add_argument(
        "--connections", type=_count, default=4, metavar="N", help="simultaneous connections (default: 4)"
    )
    group.add_argument(
        "--allow-private", action="store_true", help="allow addresses of this machine and of private networks"
    )


def _or_off(kind: Callable[[str], float]) -> Callable[[str], float | None]:
    def number_or_off(text: str) -> float | None:
        return None if text == "off" else kind(text)

    return number_or_off


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def _seconds(text: str) -> float:
    if not 0 < (number := float(text)) < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return number


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: a number of bytes is needed, such as 500K, 200M or 1.5G")
    return int(float(match[1]) * UNITS[match[2].upper()])


def run(args: argparse.Namespace) -> int:
    """Collect photos and print how many were kept, and why the others were dropped.

    Returns:
        0, or 3 if something failed.

    Raises:
        UserError: for bad input, or if no photo is kept.
    """
    from gramgan_plugin.prepare.collect.collector import CollectOptions, collect_photos
    from gramgan_plugin.prepare.collect.criteria import Criteria
    from gramgan_plugin.utils.download.limits import Network
    from gramgan_plugin.utils.threads import threads_for

    criteria = Criteria(
        min_side=args.min_side,
        min_sharpness=args.min_sharpness,
        max_spectral_drop=args.max_spectral_drop,
        min_jpeg_quality=args.min_jpeg_quality,
        max_blockiness=args.max_blockiness,
        hash_distance=args.hash_distance,
    )
    network = Network(
        max_bytes=args.max_bytes,
        max_total=args.max_total,
        timeout=args.timeout,
        retries=max(args.retries, 0),
        allow_private=args.allow_private,
    )
    options = CollectOptions(
        workers=threads_for(args.workers),
        connections=args.connections,
        licence=args.licence,
        strip_metadata=args.strip_metadata,
        on_error=args.on_error,
        shown=args.report_photos,
    )
    outcome = collect_photos(args.sources, args.out, criteria, network, options)
    return _print_outcome(outcome)


def _print_outcome(outcome: "Outcome") -> int:
    from gramgan_plugin.errors import UserError
    from gramgan_plugin.prepare.collect.criteria import REASONS
    from gramgan_plugin.utils.text import printable

    for name, reason in outcome.failed:
        print(f"failed {printable(name)}: {printable(reason)}", file=sys.stderr)
    counts = outcome.counts
    print(f"{printable(str(outcome.out))}: {counts['kept']} of {counts.total()} photos kept")
    for reason, title in REASONS.items():
        if counts[reason]:
            print(f"  {counts[reason]:6d} {title}")
    if outcome.rewritten:
        print(f"  {outcome.rewritten} of those kept were rewritten as PNG in sRGB, the others copied unchanged")
    if outcome.with_exif:
        print(f"  {outcome.with_exif} of those copied have EXIF data (places, cameras); --strip-metadata removes it")
    if outcome.set_aside:
        print(f"  {outcome.set_aside} of earlier runs are no longer kept and are now in {outcome.out / 'removed'}")
    report = outcome.out / "report.html"
    if not counts["kept"] and not outcome.failed:
        raise UserError(f"no photo is kept; {report} has the reasons, and the limits can be changed")
    print(f"see {printable(str(report))}")
    if counts["kept"]:
        photos, packed = (shlex.quote(printable(f"{outcome.out}{end}")) for end in ("/photos", "-lmdb"))
        print(f"next: basicsr prepare folder {photos} --out {packed}")
    return SOME_FAILED if outcome.failed else 0
