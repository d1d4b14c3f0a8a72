"""The arguments that every command over an option file takes, named as upstream's users know them."""

import argparse
from typing import Any


def add_option_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``-opt``, ``--force_yml`` and ``--plugin``."""
    parser.add_argument(
        "-opt",
        "--opt",
        action="append",
        required=True,
        metavar="FILE",
        help="option file (YAML), from the working directory or one that the package brings along; "
        "given more than once, later ones are merged over earlier ones",
    )
    parser.add_argument(
        "--force_yml",
        "--force-yml",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:SUBKEY=VALUE",
        help="override options, e.g. train:total_iter=1000 train:optim_g:lr=1e-4",
    )
    add_plugin_argument(parser)


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--plugin``."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module that registers classes of its own; packages can announce theirs under the entry-point "
        "group basicsr.plugins",
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and ``--local_rank``."""
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by old launchers; torchrun sets LOCAL_RANK"
    )


def read_options(arguments: argparse.Namespace, *, is_train: bool) -> dict[str, Any]:
    """The checked and resolved options that a command line asks for."""
    import basicsr  # noqa: F401  (its registries fill on import)

    from gramgan_plugin.config import check_options, load_options, resolve_options
    from gramgan_plugin.registration import load_plugins

    load_plugins(arguments.plugin)
    options = load_options(arguments.opt, arguments.force_yml)
    check_options(options)
    return resolve_options(
        options,
        is_train=is_train,
        launcher=arguments.launcher,
        auto_resume=getattr(arguments, "auto_resume", False),
        debug=getattr(arguments, "debug", False),
    )
