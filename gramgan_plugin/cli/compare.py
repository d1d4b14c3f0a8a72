"""Compare models on one image: a picture of labelled crops, and a page with a slider that needs no other file."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("compare", help="compare models on one image, side by side", description=__doc__)
    parser.add_argument("image", metavar="IMAGE", help="the image to upscale")
    parser.add_argument(
        "-m", "--model", dest="models", nargs="+", required=True, metavar="WEIGHTS",
        help="files of weights, names of `basicsr weights list`, or bicubic",
    )  # fmt: skip
    parser.add_argument("--gt", metavar="IMAGE", help="the true image, shown last and compared with by PSNR")
    parser.add_argument("-o", "--out", default="comparison", metavar="OUT", help="writes OUT.png and OUT.html")
    parser.add_argument(
        "--scale", type=float, metavar="S", help="scale of all results (default: the largest network's)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Upscale by each model, and write the files."""
    from gramgan_plugin.evaluation.model_comparison import compare_models
    from gramgan_plugin.utils.text import printable

    gt = None if arguments.gt is None else Path(arguments.gt)
    files = compare_models(Path(arguments.image), arguments.models, gt, Path(arguments.out), arguments.scale)
    print(printable(f"Written to {files[0]} and {files[1]}"))
    return 0
