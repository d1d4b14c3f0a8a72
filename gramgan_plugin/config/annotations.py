"""Check values from YAML against type annotations, and describe annotations in messages and JSON schemas."""

import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gramgan_plugin.config.keys import is_number, is_whole

LISTS = (list, tuple, Sequence, Iterable, Collection)
MAPPINGS = (dict, Mapping)
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


def fits(annotation: Any, value: Any, *, whole_floats: bool = False) -> bool:
    """Check whether a value fits an annotation; a type that YAML cannot express fits any value.

    Args:
        annotation: a type, a union, ``Literal``, or a container of these.
        value: from a YAML file.
        whole_floats: whether a float such as ``5e3`` counts as an ``int``.

    >>> fits(float, 1), fits(int, "3"), fits(list[int] | None, None), fits(tuple[float, float], [0.9])
    (True, False, True, False)
    """
    if not _is_checkable(annotation):
        return True
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(one, value, whole_floats=whole_floats) for one in arguments if _is_checkable(one))
    if origin is typing.Literal:
        return value in arguments
    kind = origin or annotation
    if kind in (None, type(None)):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return is_whole(value) if whole_floats else isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return is_number(value)
    if kind is str:
        return isinstance(value, str)
    if kind in MAPPINGS:
        return isinstance(value, Mapping)
    return isinstance(value, list | tuple) and _members_fit(kind, arguments, value, whole_floats)


def words(annotation: Any) -> str:
    """Describe an annotation for a message.

    >>> words(list[int] | None), words(typing.Literal["cos", "linear"])
    ('a list of whole numbers or null', 'one of cos, linear')
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(one) for one in arguments if _is_checkable(one)))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    kind = origin or annotation
    if kind in LISTS:
        members = [one for one in arguments if one is not Ellipsis]
        if kind is tuple and members and Ellipsis not in arguments:
            return f"a list of {len(members)} values"
        plural = {int: "whole numbers", float: "numbers", str: "texts"}
        return "a list" + (f" of {plural[members[0]]}" if members and members[0] in plural else "")
    if kind in MAPPINGS:
        return "a section"
    return WORDS.get(type(None) if kind is None else kind, "a value")


def json_schema(annotation: Any) -> dict[str, Any]:
    """Return the JSON schema of an annotation; empty if it allows any value."""
    if not _is_checkable(annotation):
        return {}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [json_schema(one) for one in arguments if _is_checkable(one)]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    kind = origin or annotation
    if kind in LISTS:
        return {"type": "array"}
    if kind in MAPPINGS:
        return {"type": "object"}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": names.get(kind, "null")}


def _is_checkable(annotation: Any) -> bool:
    """Check whether the annotation has a type that YAML can express."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if Any in arguments or object in arguments:
            return False
        return any(_is_checkable(one) for one in arguments)
    if origin in MAPPINGS and arguments[-1:] not in ((Any,), (object,)) and not all(map(_is_checkable, arguments)):
        return False  # a mapping of tensors, for example
    return origin is typing.Literal or (origin or annotation) in (None, *WORDS, *LISTS, *MAPPINGS)


def _members_fit(kind: Any, arguments: tuple[Any, ...], value: Sequence[Any], whole_floats: bool) -> bool:
    if not arguments:
        return True
    if kind is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(
            fits(one, member, whole_floats=whole_floats) for one, member in zip(arguments, value, strict=True)
        )
    return all(fits(arguments[0], member, whole_floats=whole_floats) for member in value)
