"""The declaration of one option: the kind of value, the default and the description."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from gramgan_plugin.utils.text import shown_value


@dataclass(frozen=True)
class Key:
    """The values that an option may have.

    Attributes:
        kind: one of ``KINDS``.
        what: the description, one line.
        default: the value if the key is left out.
        needed: ``always``, ``train`` (needed for training only) or empty.
        choices: the allowed values; any if empty.
        least: the smallest allowed number.
        below: numbers must be less than this.
        keys: for a section: its keys; empty if any key is allowed.
        open: whether a section may have other keys, too.
        unused: why a value other than the default has no effect; empty for a key that is used.
        hint: returns what to add to the message about a value that is not among the choices.
        of: for a component: ``arch``, ``loss``, ``optimizer``, ``scheduler`` or ``metric``.
    """

    kind: str
    what: str
    default: Any = None
    needed: str = ""
    choices: tuple[Any, ...] = ()
    least: float | None = None
    below: float | None = None
    keys: Mapping[str, "Key"] = field(default_factory=dict)
    open: bool = False
    unused: str = ""
    hint: Callable[[Any], str] = field(default=lambda value: "", compare=False)
    of: str = ""

    def mistake(self, value: Any) -> str | None:
        """Return what is wrong with a value, as the end of a message, or None."""
        if value is None and self.default is None and self.needed != "always":
            return None
        words, fits = KINDS[self.kind][:2]
        if not fits(value):
            return f"expected {words}, not {shown_value(value)}{_hint(self.kind, value)}"
        members = value if isinstance(value, list) else [value]
        for member in members:
            if self.choices and member not in self.choices:
                return (
                    f"expected one of {', '.join(map(str, self.choices))}, not {shown_value(member)}{self.hint(member)}"
                )
        for number in members:
            if self.least is not None and number < self.least:
                return f"must be at least {self.least:g}, not {shown_value(number)}"
            if self.below is not None and number >= self.below:
                return f"must be less than {self.below:g}, not {shown_value(number)}"
        return None


def is_number(value: Any) -> TypeGuard[float]:
    """Check whether a value is an integer or a finite float, not a bool."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def is_whole(value: Any) -> TypeGuard[float]:
    """Check whether a value is a whole number; upstream's files write some as floats (``5e3``)."""
    return is_number(value) and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    """Check whether a value is a valid path: no NUL, no lone surrogates, no name above 255 bytes."""
    if not isinstance(value, str) or value == "" or "\0" in value or len(value) > 4000:
        return False
    try:
        return all(len(os.fsencode(name)) <= 255 for name in value.split("/"))
    except UnicodeEncodeError:
        return False


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(fits(member) for member in value)


# kind -> (its name in messages, check, JSON schema)
KINDS: dict[str, tuple[str, Callable[[Any], bool], dict[str, Any]]] = {
    # JSON's integers include 5e3 and 5000.0.
    "whole": ("a whole number", is_whole, {"type": "integer"}),
    "number": ("a number", is_number, {"type": "number"}),
    "flag": ("true or false", lambda value: isinstance(value, bool), {"type": "boolean"}),
    "switch": (
        "true, false or auto",
        lambda value: isinstance(value, bool) or value == "auto",
        {"anyOf": [{"type": "boolean"}, {"const": "auto"}]},
    ),
    "text": ("text", _is_text, {"type": "string"}),
    "path": ("a path", _is_path, {"type": "string", "minLength": 1}),
    "paths": (
        "a path or a list of paths",
        lambda value: _is_path(value) or _list_of(_is_path)(value),
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]},
    ),
    "numbers": (
        "a list of numbers",
        _list_of(is_number),
        {"type": "array", "minItems": 1, "items": {"type": "number"}},
    ),
    "wholes": (
        "a list of whole numbers",
        _list_of(is_whole),
        {"type": "array", "minItems": 1, "items": {"type": "integer"}},
    ),
    "texts": ("a list of texts", _list_of(_is_text), {"type": "array", "minItems": 1, "items": {"type": "string"}}),
    "gpus": (
        "auto or a number of GPUs (0 for the CPU)",
        lambda value: value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0),
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0}]},
    ),
    "section": ("a section of options", lambda value: isinstance(value, Mapping), {"type": "object"}),
    "component": (
        "a section with a `type`",
        lambda value: isinstance(value, Mapping) and "type" in value,
        {"type": "object", "required": ["type"]},
    ),
    "any": ("a value", lambda value: True, {}),
}


def _hint(kind: str, value: Any) -> str:
    if isinstance(value, str) and kind in ("whole", "number", "flag"):
        try:
            float(value)
        except ValueError:
            return ""
        return "; leave out the quotes"
    return ""
