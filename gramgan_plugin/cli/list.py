"""``basicsr list [KIND] [NAME]``: show what option files can name."""

import argparse
import inspect
from typing import Any

from gramgan_plugin.cli.options import add_plugin_argument

KINDS = ("arch", "loss", "model", "dataset", "metric")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "list", help="show registered networks, losses, models, datasets, metrics", description=__doc__
    )
    parser.add_argument("kind", nargs="?", choices=KINDS, help="show only this kind")
    parser.add_argument("name", nargs="?", help="show the options of this class")
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the names with their packages, or one name with its options."""
    import basicsr  # noqa: F401  (its registries fill on import)

    from gramgan_plugin.registries import load_plugins, lookup, register_foreign_networks, registered

    load_plugins(arguments.plugin)
    if arguments.name:
        member = lookup(arguments.kind, arguments.name, f"basicsr list {arguments.kind}")
        summary = (inspect.cleandoc(vars(member).get("__doc__") or "")).partition("\n")[0]
        print(f"{arguments.name}{inspect.signature(member)}\n  {member.__module__}: {summary}")
        return 0
    if arguments.kind in (None, "arch"):
        register_foreign_networks()
    for kind in KINDS if arguments.kind is None else (arguments.kind,):
        members = list(registered(kind))
        width = max(len(name) for name, _, _ in members)
        print(f"{kind}:")
        for name, _, package in members:
            print(f"  {name:{width}}  {package}")
    return 0
