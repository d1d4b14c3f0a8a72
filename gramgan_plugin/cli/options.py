"""The arguments of all commands that read option files, with upstream's names."""

import argparse
import os
import sys
from typing import Any


def add_option_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``-opt``, ``--force_yml`` and ``--plugin``."""
    parser.add_argument(
        "-opt",
        "--opt",
        action="append",
        required=True,
        metavar="FILE",
        help="option file (YAML), in the working directory or in the package; may be given several times: later files "
        "are merged over earlier ones",
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
        help="import a module that registers classes; packages can declare theirs in the entry-point group "
        "basicsr.plugins",
    )


def add_launch_arguments(parser: argparse.ArgumentParser, default: str | None = "none") -> None:
    """Add ``--launcher`` and ``--local_rank``."""
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default=default, help="job launcher")
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by old launchers; torchrun sets LOCAL_RANK"
    )


def checked_options(
    arguments: argparse.Namespace, *, is_train: bool | None = None, with_files: bool = True
) -> dict[str, Any]:
    """Return the merged options of a command line after checking them; print warnings to stderr.

    Args:
        arguments: with ``opt``, ``force_yml`` and ``plugin``.
        is_train: whether the options are for training; None: if they have a section ``train``.
        with_files: whether to check files and folders.

    Raises:
        OptionError: one line per problem.
    """
    import basicsr  # noqa: F401  (its registries fill on import)

    from gramgan_plugin.config.file_checks import check_all
    from gramgan_plugin.config.load import load_options
    from gramgan_plugin.registries import load_plugins
    from gramgan_plugin.utils.text import printable

    load_plugins(arguments.plugin)
    options = load_options(arguments.opt, arguments.force_yml)
    resumed = getattr(arguments, "auto_resume", False)

    def warn(line: str) -> None:
        if os.environ.get("RANK", "0") == "0":  # one of several processes is enough
            print(f"basicsr {arguments.command}: warning: {printable(line)}", file=sys.stderr)

    check_all(options, warn, is_train=is_train, with_files=with_files, resumed=resumed)
    return options


def read_options(arguments: argparse.Namespace, *, is_train: bool) -> dict[str, Any]:
    """Return the checked and resolved options of a command line.

    Raises:
        OptionError: one line per problem.
    """
    options = checked_options(arguments, is_train=is_train)
    from gramgan_plugin.config.resolve import resolve_options

    return resolve_options(
        options,
        is_train=is_train,
        launcher=arguments.launcher,
        auto_resume=getattr(arguments, "auto_resume", False),
        debug=getattr(arguments, "debug", False),
    )
