"""``basicsr schema``: print the JSON schema of option files, or docs/options.md."""

import argparse
import json
from typing import Any

from gramgan_plugin.cli.options import add_plugin_argument


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON schema of option files, for editors",
        description="Print the JSON schema (draft 2020-12) of option files. Editors complete and explain keys with it: "
        "with yaml-language-server, `# yaml-language-server: $schema=FILE` as an option file's first line.",
    )
    parser.add_argument("--markdown", action="store_true", help="print the same in Markdown (docs/options.md)")
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the schema or the page."""
    import basicsr  # noqa: F401  (its registries fill on import)

    from gramgan_plugin.config.json_schema import json_schema
    from gramgan_plugin.config.options_page import options_page
    from gramgan_plugin.registries import load_plugins

    load_plugins(arguments.plugin)
    if arguments.markdown:
        print(options_page(), end="")
    else:
        print(json.dumps(json_schema(), indent=1))
    return 0
