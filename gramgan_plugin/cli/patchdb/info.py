"""``basicsr patchdb info``: show the content of a database, in numbers and as a picture."""

import argparse
import json
from pathlib import Path


def add_forms(forms: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``info`` to the forms of ``patchdb``."""
    parser = forms.add_parser(
        "info",
        help="show the content of a database, with a contact sheet",
        description="Print the content of a database, and draw a contact sheet: patches from all of it, sorted by "
        "contrast from top to bottom and by hue along each row.",
    )
    parser.add_argument("database", type=Path, metavar="DB", help="the database")
    sheet = parser.add_mutually_exclusive_group()
    sheet.add_argument(
        "--sheet", type=Path, metavar="PNG", help="file of the contact sheet (default: NAME.png beside DB)"
    )
    sheet.add_argument("--no-sheet", action="store_true", help="do not draw the contact sheet")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the facts as JSON")
    parser.add_argument("--verify", action="store_true", help="read all files and compare them with their checksums")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the facts and draw the sheet.

    Raises:
        UserError: if the database cannot be used, or a file cannot be written.
    """
    from gramgan_plugin.patchdb.making.info import describe, lines
    from gramgan_plugin.patchdb.making.sheet import contact_sheet, save_picture
    from gramgan_plugin.patchdb.store import open_store
    from gramgan_plugin.utils.io import real_path, replace_file
    from gramgan_plugin.utils.text import printable

    store = open_store(args.database, verify=args.verify)
    facts = describe(store)
    print("\n".join(printable(line) for line in lines(facts)))
    if args.verify:
        print("  all files are as they were written")
    if not args.no_sheet:
        place = real_path(args.database)
        sheet = args.sheet or place.with_name(f"{place.name.removesuffix('.patchdb')}.png")
        save_picture(contact_sheet(store), sheet)
        print(f"  contact sheet: {printable(str(sheet))}")
    if args.json is not None:
        text = json.dumps({"format": 1, **facts}, indent=2, allow_nan=False) + "\n"
        replace_file(args.json, text.encode("ascii"))
    return 0
