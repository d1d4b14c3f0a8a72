"""``basicsr weights list | fetch | verify``: the public checkpoints that options and commands can name."""

import argparse
import json
import sys
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import printable

SOME_FAILED = 3


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "weights",
        help="list, fetch and check public checkpoints such as ESRGAN_x4 and vgg19",
        description="Public checkpoints: ESRGAN, Real-ESRGAN, and the networks of perceptual losses and metrics. They "
        "are downloaded once into a folder of the user's cache, or into that of the variable GRAMGAN_WEIGHTS.",
    )
    forms = parser.add_subparsers(dest="form", required=True, metavar="FORM")
    table = forms.add_parser("list", help="show names, sizes, licences, and what is on this machine")
    table.add_argument("--json", action="store_true", help="print the list as JSON, with addresses and SHA-256")
    table.set_defaults(run=run_list)
    fetch = forms.add_parser("fetch", help="download what is missing or damaged")
    fetch.add_argument("names", nargs="*", metavar="WEIGHTS", help="a name of the list")
    fetch.add_argument("--all", action="store_true", help="all of the list, about 1.6 GB")
    fetch.set_defaults(run=run_fetch)
    verify = forms.add_parser("verify", help="check size, SHA-256 and content of the files")
    verify.add_argument("names", nargs="*", metavar="WEIGHTS", help="a name of the list (default: all that are here)")
    verify.set_defaults(run=run_verify)


def run_list(arguments: argparse.Namespace) -> int:
    """Print a table of the weights, or JSON."""
    from dataclasses import asdict

    from gramgan_plugin.checkpoints.public_weights import WEIGHTS
    from gramgan_plugin.checkpoints.weights_cache import FOLDER_VARIABLE, cache_folder, find

    here = {weights.name: find(weights) for weights in WEIGHTS.values()}
    if arguments.json:
        rows = [
            asdict(weights) | {"whole_sha256": weights.whole_sha256, "path": path and str(path)}
            for weights, path in zip(WEIGHTS.values(), here.values(), strict=True)
        ]
        print(json.dumps({"folder": str(cache_folder()), "weights": rows}, indent=2))
        return 0
    print(f"{'name':26}  {'size':>8}  {'licence':12}  {'here':7}  what it is")
    for weights in WEIGHTS.values():
        size = f"<{weights.max_bytes / 1e6:.0f} MB" if weights.size is None else f"{weights.size / 1e6:.1f} MB"
        path = here[weights.name]
        whole = path is not None and weights.size in (None, path.stat().st_size)
        there = "no" if path is None else "yes" if whole else "damaged"
        print(f"{weights.name:26}  {size:>8}  {weights.licence:12}  {there:7}  {weights.about}")
    print(f"folder: {printable(str(cache_folder()))} ({FOLDER_VARIABLE} sets another one)")
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Fetch each of the weights and print its file.

    Returns:
        0, or 3 if some cannot be fetched.

    Raises:
        UserError: for an unknown name, or none.
    """
    from gramgan_plugin.checkpoints.public_weights import WEIGHTS, public_weights
    from gramgan_plugin.checkpoints.weights_cache import fetch

    wanted = [public_weights(name) for name in (WEIGHTS if arguments.all else dict.fromkeys(arguments.names))]
    if not wanted:
        raise UserError("name what to fetch, or pass --all; `basicsr weights list` shows the names")
    failed = False
    for weights in wanted:
        try:
            print(f"{weights.name}: {printable(str(fetch(weights)))} ({weights.licence})", flush=True)
        except UserError as error:
            print(f"failed {printable(str(error))}", file=sys.stderr)
            failed = True
    return SOME_FAILED if failed else 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Check each file and print a line about it.

    Returns:
        0, or 3 if some are damaged or missing.

    Raises:
        UserError: for an unknown name.
    """
    from gramgan_plugin.checkpoints.public_weights import WEIGHTS, public_weights
    from gramgan_plugin.checkpoints.weights_cache import cache_folder, find, verify

    named = [public_weights(name) for name in dict.fromkeys(arguments.names)]
    wanted = named or [weights for weights in WEIGHTS.values() if find(weights) is not None]
    if not wanted:
        print(f"nothing to verify: {printable(str(cache_folder()))} has no public weights")
    failed = False
    for weights in wanted:
        path = find(weights)
        try:
            problem = "not on this machine" if path is None else verify(weights, path)
        except UserError as error:
            problem = str(error)
        failed = failed or problem is not None
        cure = "install gramgan-plugin again" if weights.shipped else f"`basicsr weights fetch {weights.name}` gets it"
        what = "fine" if problem is None else f"{problem}; {cure}"
        print(printable(f"{weights.name}: {what}" if path is None else f"{weights.name}: {path}: {what}"), flush=True)
    return SOME_FAILED if failed else 0
