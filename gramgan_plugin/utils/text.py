"""Prepare text for messages: escape it, shorten it, find the nearest name. Imports nothing heavy."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet's formula can begin with


def printable(text: str) -> str:
    """Escape control and unprintable characters; the result is one line.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def spreadsheet_cell(text: str) -> str:
    """Return the text with an apostrophe before anything that a spreadsheet would run as a formula.

    >>> spreadsheet_cell("=1+1"), spreadsheet_cell("1+1")
    ("'=1+1", '1+1')
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def shown(value: object, longest: int = 100) -> str:
    """Return ``value`` as printable text with at most ``longest`` characters.

    Example:
        >>> shown("conv\\n" * 50, longest=10)
        'conv\\\\nc...'
    """
    text = str(value)
    cut = printable(text[:longest])
    return cut if len(text) <= longest and len(cut) <= longest else f"{cut[: longest - 3]}..."


def shortened(line: str, most: int = 1000) -> str:
    """Return a line with at most ``most`` characters: of a longer one the beginning and the end.

    >>> shortened("name: " + "x" * 100 + " cannot be a folder's name", 60)
    "name: xxxxxxxxxxxxxxxxxxxxxxxx ... x cannot be a folder's name"
    """
    if len(line) <= most:
        return line
    return f"{line[: most // 2]} ... {line[-(most * 9 // 20) :]}"


def shown_value(value: Any) -> str:
    """Return an option's value for a message, in about 60 characters at most.

    >>> shown_value("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    if isinstance(value, Mapping):
        return "a section"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # a list that contains itself; an integer with thousands of digits
        return f"this {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:55]}..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name if it has none.

    >>> first_line(ValueError("no such layer\\nin VGG19")), first_line(KeyboardInterrupt())
    ('no such layer', 'KeyboardInterrupt')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(name: Any, known: Iterable[Any], otherwise: str = "; `basicsr list` shows what there is") -> str:
    """Return a hint for an unknown name: ``; did you mean 'X'?``.

    Args:
        name: the unknown name.
        known: the valid names; at most three that are about equally near are suggested.
        otherwise: returned where no name is near.
    """
    lower = str(name)[:100].lower()  # no name is longer, and the comparison takes the product of the lengths

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(None, lower, candidate.lower()).ratio()

    ranked = sorted(((likeness(str(candidate)), str(candidate)) for candidate in known), reverse=True)
    near = [candidate for ratio, candidate in ranked if ratio >= max(0.6, ranked[0][0] - 0.1)][:3]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else otherwise
