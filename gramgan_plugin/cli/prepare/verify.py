"""``basicsr prepare verify``: check LMDBs before training on them."""

import argparse
import json
from pathlib import Path

SOMETHING_IS_WRONG = 3


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``verify`` to the forms of ``prepare``."""
    verify = forms.add_parser(
        "verify",
        help="check LMDBs: every image decodes, LQ is GT's downsampling; store a fingerprint",
        description="Read LMDBs completely: pages, list, images, sizes; check whether LQ is GT's downsampling, or is "
        "shifted or of another photo. If nothing is wrong, store a fingerprint of the content, which training "
        "checks. The exit code is 3 if something is wrong.",
    )
    verify.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a prepared folder (GT.lmdb, LQ_xS.lmdb), or an LMDB"
    )
    verify.add_argument("--lq", type=Path, metavar="LMDB", help="the LQ LMDB of the GT LMDB at PATH")
    verify.add_argument("--scale", type=int, help="factor between GT and LQ (default: by the name, else the sizes)")
    verify.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="compare only N evenly spread pairs as images; all are decoded (default: all; that takes about as long as "
        "decoding, and five times as long if LQ is not MATLAB bicubic)",
    )
    verify.add_argument("--workers", type=int, metavar="N", help="threads (default: one per CPU of this process)")
    verify.add_argument("--no-store", action="store_true", help="store no fingerprint")
    verify.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    verify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify each path and print a line for each check.

    Returns:
        0, or 3 if something is wrong.

    Raises:
        UserError: for paths that cannot be used.
    """
    from gramgan_plugin.errors import UserError
    from gramgan_plugin.prepare.verify.run import verify
    from gramgan_plugin.prepare.verify.targets import find_target
    from gramgan_plugin.utils.io import replace_file
    from gramgan_plugin.utils.text import printable

    if args.lq is not None and len(args.paths) > 1:
        raise UserError(f"--lq: works with one GT LMDB, {len(args.paths)} are given; verify them one by one")
    targets = [find_target(path, args.lq, args.scale) for path in args.paths]
    results = []
    for target in targets:
        result = verify(target, pairs=args.pairs, workers=args.workers, store=not args.no_store)
        results.append(result)
        for check in result.checks:
            print("\n".join(printable(line) for line in check.lines()))
        print(printable(f"{target.path}: {'fine' if result.fine else 'something is wrong'}"))
    if args.json is not None:
        data = {"format": 1, "fine": all(result.fine for result in results), "paths": [r.as_data() for r in results]}
        replace_file(args.json, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode("ascii"))
    return 0 if all(result.fine for result in results) else SOMETHING_IS_WRONG
