"""Write one flat option file that BasicSR's own loader reads the same as ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.yaml_io import parse_yaml, yaml_text

HEADER = "# Written by `basicsr check --resolve`: option files merged, overrides applied.\n"


def flat_yaml(options: Mapping[str, Any]) -> str:
    """Return options as YAML that has the same meaning in YAML 1.1 (BasicSR's loader) and 1.2 (ours).

    >>> print(flat_yaml({"lr": 1e-4, "name": "1e-4"}), end="")
    # Written by `basicsr check --resolve`: option files merged, overrides applied.
    lr: 0.0001
    name: '1e-4'
    """
    return HEADER + yaml_text(options)


def write_flat(options: Mapping[str, Any], path: Path) -> None:
    """Write options as one flat file, atomically.

    Raises:
        UserError: if the file cannot be written.
    """
    text = flat_yaml(options)
    if parse_yaml(text, str(path)) != options:
        raise UserError(f"{path}: these options cannot be written so that they read the same")
    if not path.parent.is_dir():  # not created here: the name may be mistyped
        raise UserError(f"{path}: cannot be written: no such folder; make it, or choose another name")
    replace_file(path, text.encode())
