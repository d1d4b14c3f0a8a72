"""Read and write the YAML of option files. Imports nothing heavy.

Reading is safe, refuses duplicate keys and takes YAML 1.2 floats. Written files read the same in BasicSR's loader
(YAML 1.1).
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import first_line, shown_value

MOST_BYTES = 2**20  # of one file
MOST_NODES = 10_000  # keys and values of one file; a long option file has 500
MOST_VALUES = 100_000  # of one file, with its anchors expanded
MOST_LEVELS = 50  # of sections within sections
LONGEST_NUMBER = 100  # characters; converting YAML 1.1's base-60 numbers takes quadratic time


class _Loader(yaml.SafeLoader):
    """A safe loader that reads ``1e-4`` as a float and refuses duplicate keys."""

    nodes = 0
    merged = 0  # keys of mappings, including those merged by `<<`: a short file can have very many

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; stop early at too many nodes, since PyYAML is slow."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, f"more than {MOST_NODES:,d} keys and values, too many for an option file", mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a value; report a text that its tag does not allow with its line."""
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in ("int", "float") and len(str(node.value)) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(None, None, "a number that is too long", node.start_mark)
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown_value(node.value)} is not of the type {kind}", node.start_mark
            ) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge the mappings that ``<<`` names."""
        super().flatten_mapping(node)
        self.merged += len(node.value)
        if self.merged > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"merges more than {MOST_VALUES:,d} values", node.start_mark
            )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a dict; refuse a key that appears twice or is not a plain value."""
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        self.flatten_mapping(node)
        seen: set[Any] = set()
        for key_node in own:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, dict | list):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown_value(key)} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


# PyYAML follows YAML 1.1, where a float needs a dot: `lr: 1e-4` would be a string.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?
            |[-+]?[0-9]+[eE][-+]?[0-9]+
            |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML document.

    Args:
        text: the document.
        source: where it comes from, for messages.

    Raises:
        OptionError: if it is not YAML, has an unknown tag or one that could run code, or has a key twice.

    >>> parse_yaml("lr: 1e-4", "example")
    {'lr': 0.0001}
    """
    if len(text) > MOST_BYTES:
        raise OptionError(f"{source}: longer than {MOST_BYTES // 2**20} MB, too long for an option file")
    try:
        return _unshared(yaml.load(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}, line {mark.line + 1}" if mark else source
        line = text.splitlines()[mark.line].partition("#")[0] if mark and mark.line < len(text.splitlines()) else ""
        quotes = "; a value that begins with { needs quotes, such as '{}x4'" if re.search(r"[:\s=]\{\}\S", line) else ""
        raise OptionError(f"{place}: {error.problem or error}{quotes}") from error
    except RecursionError as error:
        raise OptionError(f"{source}: not readable as YAML: nested too deeply, or an anchor holds itself") from error
    except (yaml.YAMLError, ValueError) as error:
        raise OptionError(f"{source}: not readable as YAML: {first_line(error)}") from error


def _unshared(value: Any, room: list[int] | None = None, level: int = 0) -> Any:
    """Return ``value`` with anchors expanded to separate copies: BasicSR's models remove keys from their options.

    Nested anchors can make a few lines expand without limit; ``room`` counts down the values that are still allowed.
    """
    room = [MOST_VALUES] if room is None else room
    room[0] -= 1
    if room[0] < 0:
        raise ValueError(f"its anchors stand for more than {MOST_VALUES:,d} values")
    if level > MOST_LEVELS:
        raise RecursionError
    if isinstance(value, dict):
        return {key: _unshared(member, room, level + 1) for key, member in value.items()}
    return [_unshared(member, room, level + 1) for member in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """A writer of YAML 1.1 without anchors, which quotes text that YAML 1.2 would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write shared lists out at each place."""
        return True


def yaml_text(options: Mapping[str, Any]) -> str:
    """Return options as YAML that reads the same under YAML 1.1 and 1.2; tuples become lists.

    >>> print(yaml_text({"lr": 1e-4, "name": "1e-4", "betas": (0.9, 0.99)}), end="")
    lr: 0.0001
    name: '1e-4'
    betas: [0.9, 0.99]
    """
    # Non-ASCII letters are escaped: PyYAML cannot read all of them unescaped.
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
