"""Commands that have forms (``basicsr prepare pack``), each of which is a module of the command's package."""

import argparse
import importlib


def add_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    package: str,
    modules: tuple[str, ...],
    *,
    help: str,
    description: str,
) -> None:
    """Add a command and its forms.

    Args:
        subparsers: of ``basicsr``.
        package: the command's package; its last name is the command's.
        modules: modules of the package with ``add_forms(forms)``, which sets `run`. None imports torch before it runs.
        help: the line in the list of commands.
        description: the command's own.
    """
    command = subparsers.add_parser(package.rpartition(".")[2], help=help, description=description)
    forms = command.add_subparsers(dest="form", required=True, metavar="FORM")
    for name in modules:
        importlib.import_module(f"{package}.{name}").add_forms(forms)
