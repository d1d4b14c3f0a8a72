"""``basicsr prepare folder`` and ``sample``: photos to an LMDB pair."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gramgan_plugin.data.prepare.pack import Report

SOME_FAILED = 3
SAMPLE_OUT = Path("datasets/sample")


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``folder`` and ``sample`` to the forms of ``prepare``."""
    folder = forms.add_parser("folder", help="from a folder of photos", description="Prepare a folder of photos.")
    folder.add_argument("photos", type=Path, metavar="PHOTOS", help="the folder")
    folder.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    folder.add_argument("--recursive", action="store_true", help="take photos in subfolders, too")
    folder.add_argument(
        "--hold-out",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="photos to write whole under DIR/test instead, named as in the folder, with or without suffix",
    )
    _add_options(folder, step=240, most=None)

    sample = forms.add_parser(
        "sample",
        help="from the photos in scikit-image's wheel; downloads nothing",
        description="Prepare the photos that scikit-image carries: six in sub-images, two held out.",
    )
    sample.add_argument("--out", type=Path, default=SAMPLE_OUT, metavar="DIR", help="folder to write")
    _add_options(sample, step=96, most=30)


def _add_options(parser: argparse.ArgumentParser, step: int, most: int | None) -> None:
    parser.add_argument("--scale", type=int, default=4, help="factor between GT and LQ (default: %(default)s)")
    parser.add_argument(
        "--crop-size", type=int, default=192, help="side of a GT sub-image in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--step", type=int, default=step, help="pixels from one sub-image to the next (default: %(default)s)"
    )
    parser.add_argument(
        "--thresh-size",
        type=int,
        default=0,
        help="pixels at the right and lower border that may go unused (default: %(default)s)",
    )
    parser.add_argument(
        "--max-per-photo",
        type=int,
        default=most,
        metavar="N",
        help="the most sub-images that one photo gives, spread evenly over it (default: "
        + ("all)" if most is None else "%(default)s)"),
    )
    parser.add_argument(
        "--compression-level", type=int, default=3, help="of the PNG data, 0 to 9 (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DIR once the new one is complete")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="for photos that cannot be decoded or are too small: write nothing, or skip them (exit code 3)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare what the arguments ask for and print what was written.

    Returns:
        0, or 3 if photos were skipped.

    Raises:
        UserError: for bad input.
    """
    from gramgan_plugin.data.prepare.pack import prepare_photos
    from gramgan_plugin.data.prepare.sample import folder_photos, prepare_sample

    options = {
        "scale": args.scale,
        "crop_size": args.crop_size,
        "step": args.step,
        "thresh_size": args.thresh_size,
        "max_per_photo": args.max_per_photo,
        "compression_level": args.compression_level,
        "overwrite": args.overwrite,
        "on_error": args.on_error,
    }
    if args.form == "sample":
        report = prepare_sample(args.out, **options)
    else:
        photos = folder_photos(args.photos, args.recursive)
        report = prepare_photos(photos, args.out, hold_out=args.hold_out, **options)
    _print_report(report)
    return SOME_FAILED if report.skipped else 0


def _print_report(report: "Report") -> None:
    from gramgan_plugin.data.progress import printable

    for name, reason in report.skipped:
        print(f"skipped {printable(name)}: {reason}", file=sys.stderr)
    lq_size = report.crop_size // report.scale
    print(
        f"{report.out}: {report.sub_images} sub-images of {report.photos} photos, "
        f"GT {report.crop_size}x{report.crop_size}, LQ {lq_size}x{lq_size}, "
        f"{report.held_out} photos held out, {report.size_in_bytes / 1e6:.1f} MB"
    )
    print(f"  datasets.train.dataroot_gt: {report.gt}")
    print(f"  datasets.train.dataroot_lq: {report.lq}")
    if report.held_out:
        print(f"  datasets.val.dataroot_gt: {report.out / 'test' / 'GT'}")
        print(f"  datasets.val.dataroot_lq: {report.out / 'test' / f'LQ_x{report.scale}'}")
    if (report.out, report.scale) == (SAMPLE_OUT, 4):  # what the option files for the sample name
        print("next: basicsr train -opt train_rrdb_psnr_sample.yml")
    else:
        print("next, with these paths in a copy of the option file: basicsr train -opt train_rrdb_psnr_x4.yml")
