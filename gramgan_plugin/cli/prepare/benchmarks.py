"""``basicsr prepare benchmarks``: bring downloaded test sets into one layout."""

import argparse
import sys
from pathlib import Path

SCALES = (2, 3, 4, 8)


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``benchmarks`` to the forms of ``prepare``."""
    parser = forms.add_parser(
        "benchmarks",
        help="prepare test sets such as Set5 and BSD100, from the layout of the download",
        description="Bring test sets into BasicSR's layout: DIR/SET/GTmod12, DIR/SET/LRbicx4. LQ is copied if the "
        "source has it, or else made by MATLAB bicubic; DIR/SET/benchmark.json and `basicsr test` report which.",
    )
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="SRC",
        help="a set, or a folder of sets: in BasicSR's, EDSR's or SelfExSR's layout, a folder of images, or only HR",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that gets a folder for each set")
    parser.add_argument(
        "--scale",
        type=int,
        action="append",
        choices=SCALES,
        metavar="N",
        help="factor between GT and LQ: 2, 3, 4 or 8; may be given several times (default: 4)",
    )
    parser.add_argument(
        "--mod-crop",
        type=int,
        metavar="N",
        help="mod-crop GT to multiples of N (default: 12, so that scales 2, 3 and 4 share one GT; 24 with scale 8)",
    )
    parser.add_argument(
        "--lq",
        choices=("keep", "make", "matlab-bicubic", "matlab-uint8"),
        default="keep",
        help="keep: copy the source's LQ if it has one; or always make LQ: matlab-bicubic (the same as make), or "
        "matlab-uint8, rounded between the passes as in EDSR's sets (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace sets in DIR that were prepared earlier")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare the sets and print what was written.

    Raises:
        UserError: for bad input.
    """
    from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC, MATLAB_UINT8
    from gramgan_plugin.prepare.benchmarks import prepare_benchmarks

    scales = tuple(args.scale or (4,))
    reports = prepare_benchmarks(
        args.sources,
        args.out,
        scales,
        mod_crop_to=args.mod_crop,
        make_lq=args.lq != "keep",
        kind=MATLAB_UINT8 if args.lq == MATLAB_UINT8 else MATLAB_BICUBIC,
        overwrite=args.overwrite,
    )
    for report in reports:
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"{report.folder}: {report.images} images, from {report.layout}'s layout")
        print(f"  dataroot_gt: {report.gt}")
        for scale, folder in report.lq.items():
            print(f"  dataroot_lq: {folder}  (x{scale}: {report.kinds[scale]})")
    print("next, with these paths under datasets.test_1, test_2, ...: basicsr test -opt test_gramgan_x4.yml")
    return 0
