"""One flat option file that BasicSR's own loader reads as ours does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gramgan_plugin.config.yaml_reader import parse_yaml
from gramgan_plugin.errors import UserError

HEADER = "# Written by `basicsr check --resolve`: option files merged, overrides applied.\n"


class _Dumper(yaml.SafeDumper):
    """YAML 1.1 without anchors, in which text that YAML 1.2 takes for a number is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        """Lists that options share are written out at each place."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quoted = text != "" and text.strip() == text and not text.isalpha() and _is_a_number(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if quoted else None)


def _is_a_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _list(dumper: yaml.SafeDumper, members: list[Any]) -> yaml.SequenceNode:
    plain = not any(isinstance(member, list | dict) for member in members)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", members, flow_style=plain)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def flat_yaml(options: Mapping[str, Any]) -> str:
    """Options as YAML that reads the same under YAML 1.1 (BasicSR's loader) and 1.2 (ours).

    >>> print(flat_yaml({"lr": 1e-4, "name": "1e-4", "betas": [0.9, 0.99]}), end="")
    # Written by `basicsr check --resolve`: option files merged, overrides applied.
    lr: 0.0001
    name: '1e-4'
    betas: [0.9, 0.99]
    """
    return HEADER + yaml.dump(dict(options), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120)


def write_flat(options: Mapping[str, Any], path: Path) -> None:
    """Write options as ``flat_yaml`` gives them, whole or not at all.

    Raises:
        UserError: if the file cannot be written.
    """
    text = flat_yaml(options)
    if parse_yaml(text, str(path)) != options:
        raise UserError(f"{path}: these options cannot be written so that they read the same")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
