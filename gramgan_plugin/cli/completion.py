"""``basicsr completion SHELL``: print a script that completes commands, options and option files."""

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.errors import UserError

HOW = {
    "bash": 'eval "$(basicsr completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(basicsr completion zsh)" in ~/.zshrc, after compinit',
    "fish": "basicsr completion fish > ~/.config/fish/completions/basicsr.fish",
}
FOLDERS = ("DIR", "PHOTOS")  # metavars of arguments that are folders


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script for completion with the Tab key",
        description="Print a shell's completion script. To use it: " + "; ".join(HOW.values()),
    )
    parser.add_argument("shell", choices=tuple(HOW), help="the shell that reads the script")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from gramgan_plugin.cli.main import build_parser

    print(completion_script(build_parser(), arguments.shell))
    return 0


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script of a parser, which is modified.

    Args:
        parser: of the whole command line.
        shell: ``bash``, ``zsh`` or ``fish``.

    Raises:
        UserError: if shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise UserError("shell completion needs the package shtab: pip install 'shtab>=1.9,<2'") from error
    _mark_arguments(parser, shtab)
    script: str = shtab.complete(parser, shell)
    # Fish has a separate switch for long options with one dash.
    return script.replace(" -s opt ", " -o opt ") if shell == "fish" else script


def _mark_arguments(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Mark the arguments of a parser and its subparsers as option files, folders or other files."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for entry in action._choices_actions:
                below = action.choices[entry.dest]
                below.description = entry.help  # shells show the short one
                _mark_arguments(below, shtab)
        elif action.dest == "opt":
            action.complete = _option_files(shtab)  # type: ignore[attr-defined]
        elif action.metavar == "WEIGHTS":
            action.choices = tuple(WEIGHTS)
        elif action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE  # type: ignore[attr-defined]
        if isinstance(action.metavar, str):  # a colon has a meaning in zsh's specifications
            action.metavar = action.metavar.replace(":", "-")


def _option_files(shtab: Any) -> dict[str, Any]:
    """Return shell code that lists the shipped option files, and YAML files of the working directory."""
    entries = files("gramgan_plugin.options").iterdir()
    shipped = " ".join(sorted(entry.name for entry in entries if entry.name.endswith(".yml")))
    local = shtab.glob("*.yml", "*.yaml")
    # The names end in _file: shtab's bash then treats the output as file names.
    bash = f"""
_basicsr_option_file() {{
  compgen -W "{shipped}" -- "$1"
  {local["bash"]} "$1"
}}
"""
    zsh = f"""
_basicsr_option_file() {{
  local -a shipped=({shipped})
  compadd -a shipped
  _files -g '*.(yml|yaml)'
}}
"""
    fish = f"""
function _basicsr_option_file
  printf '%s\\n' {shipped}
  {local["fish"].strip("()")}
end
"""
    return {
        "bash": "_basicsr_option_file",
        "zsh": "_basicsr_option_file",
        "fish": "(_basicsr_option_file)",
        "preamble": {
            "bash": local["preamble"]["bash"] + bash,
            "zsh": zsh,
            "fish": local["preamble"]["fish"] + fish,
        },
    }
