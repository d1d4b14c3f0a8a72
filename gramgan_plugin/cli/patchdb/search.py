"""``basicsr patchdb search``: show the nearest patches of a database for the patches of an image."""

import argparse
import json
import math
from pathlib import Path

from gramgan_plugin.cli.patchdb.common import add_vgg_weights, index_kind
from gramgan_plugin.search.kinds import KINDS


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``search`` to the forms of ``patchdb``."""
    parser = forms.add_parser(
        "search",
        help="draw an image's patches and their nearest patches in the database",
        description="Search the nearest patches for all patches of an image. The picture shows the image beside a "
        "reconstruction from the nearest patches, then some patches with their nearest ones and distances.",
    )
    parser.add_argument("database", type=Path, metavar="DB", help="the database")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a photo")
    parser.add_argument("--out", type=Path, default=Path("search.png"), metavar="PNG", help="(default: %(default)s)")
    parser.add_argument(
        "--top-k", type=int, default=4, metavar="N", help="matches shown for each patch (default: %(default)s)"
    )
    parser.add_argument(
        "--index",
        type=index_kind,
        choices=KINDS,
        default="auto",
        help="how to search (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the matches of the shown patches as JSON")
    add_vgg_weights(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search, draw and print the mean distance.

    Raises:
        UserError: if the database or the image cannot be used, or a file cannot be written.
    """
    from gramgan_plugin.errors import UserError
    from gramgan_plugin.patchdb.making.matches import picture_of_search
    from gramgan_plugin.patchdb.making.sheet import save_picture
    from gramgan_plugin.patchdb.search import PatchSearch
    from gramgan_plugin.patchdb.store import open_store
    from gramgan_plugin.utils.io import replace_file
    from gramgan_plugin.utils.text import printable

    if not 1 <= args.top_k <= 16:
        raise UserError(f"--top-k {args.top_k}: must be 1 to 16")
    store = open_store(args.database)
    found = picture_of_search(store, PatchSearch(store, args.index), args.image, args.top_k, args.vgg_weights)
    save_picture(found.picture, args.out)
    print(
        f"{printable(str(args.out))}: mean Gram distance {found.distance:.5f}; "
        f"the reconstruction from the nearest patches has {found.psnr:.2f} dB"
    )
    if args.json is not None:
        data = {"format": 1, "image": str(args.image), "database": store.fingerprint, "distance": found.distance}
        psnr = found.psnr if math.isfinite(found.psnr) else None
        text = json.dumps({**data, "psnr": psnr, "patches": found.rows}, indent=2, allow_nan=False) + "\n"
        replace_file(args.json, text.encode("ascii"))
    return 0
