"""YAML that BasicSR's loader (YAML 1.1) and ours (1.2) read alike. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """YAML 1.1 without anchors, in which text that YAML 1.2 takes for a number is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        """Lists that options share are written out at each place."""
        return True


def yaml_text(options: Mapping[str, Any]) -> str:
    """Options as YAML that reads the same under YAML 1.1 and 1.2; tuples become lists.

    >>> print(yaml_text({"lr": 1e-4, "name": "1e-4", "betas": (0.9, 0.99)}), end="")
    lr: 0.0001
    name: '1e-4'
    betas: [0.9, 0.99]
    """
    # Letters outside ASCII are escaped: PyYAML does not read all that it would otherwise write.
    return yaml.dump(dict(options), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quoted = text != "" and text.strip() == text and not text.isalpha() and _is_a_number(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if quoted else None)


def _is_a_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _list(dumper: yaml.SafeDumper, members: list[Any] | tuple[Any, ...]) -> yaml.SequenceNode:
    plain = not any(isinstance(member, list | tuple | dict) for member in members)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", members, flow_style=plain)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(tuple, _list)
_Dumper.add_multi_representer(dict, lambda dumper, section: dumper.represent_dict(section.items()))
