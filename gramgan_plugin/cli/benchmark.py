"""Measure models on benchmark sets, and write tables and a page with pictures.

MODEL is a file of weights in any format, a name of `basicsr weights list`, `bicubic`, `A@0.8:B` (the weights 0.8 A +
0.2 B), or a folder of results (SET/IMAGE.png). Exit code 3: some images could not be measured; the rest is written.
Started by torchrun, several processes share the images: torchrun --nproc-per-node 4 --no-python basicsr benchmark ...
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from gramgan_plugin.cli.options import add_launch_arguments


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("benchmark", help="measure models on Set5, Set14, ...", description=__doc__)
    parser.add_argument("-m", "--model", dest="models", nargs="+", required=True, metavar="MODEL", help="see above")
    parser.add_argument("--data", required=True, metavar="DIR", help="a folder of sets in any usual layout, or one set")
    parser.add_argument("--sets", metavar="NAME,...", help="of these sets alone (default: all)")
    parser.add_argument("-o", "--output", dest="out", required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--scale", type=int, metavar="N", help="of all models (default: the networks' own)")
    parser.add_argument("--crop", type=int, metavar="N", help="pixels left out at each border (default: the scale)")
    parser.add_argument("--metrics", metavar="NAME,...", help="what to measure (default: see docs/benchmark.md)")
    parser.add_argument("--baseline", metavar="MODEL", help="differences are to this one (default: the first)")
    parser.add_argument("--merge-scores", metavar="CSV", help="scores measured elsewhere: model,set,image,metric,value")
    parser.add_argument("--save-images", action="store_true", help="write each SR to DIR/images/SET/MODEL")
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--tile", type=int, metavar="N", help="side of tiles in pixels of LQ; 0: none (default: auto)")
    add_launch_arguments(parser, default=None)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure the models, write the report, and print the table."""
    import logging

    from gramgan_plugin.evaluation.benchmark_report import benchmark
    from gramgan_plugin.utils import distributed

    by_torchrun = "pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none"
    use_gpus = not (arguments.device or "").startswith("cpu")
    with distributed.joined(arguments.launcher or by_torchrun, use_gpus=use_gpus) as (rank, _):
        logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, format="%(message)s")
        written = benchmark(
            arguments.models,
            Path(arguments.data),
            Path(arguments.out),
            sets=_names(arguments.sets),
            metrics=_names(arguments.metrics),
            scale=arguments.scale,
            crop=arguments.crop,
            baseline=arguments.baseline,
            scores=None if arguments.merge_scores is None else Path(arguments.merge_scores),
            options={
                "save_images": arguments.save_images,
                "device": arguments.device,
                "tile": "auto" if arguments.tile is None else arguments.tile,
            },
        )
    if written is None:
        return 0
    text, problems = written
    encoding = sys.stdout.encoding or "utf-8"  # arrows are not in every one
    print(text.encode(encoding, "replace").decode(encoding))
    for line in problems:
        print(line)
    return 3 if problems else 0


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
