"""One finding, and gathering them from checks that may themselves fail."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from gramgan_plugin.utils.text import first_line


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """A fact about the machine.

    Attributes:
        topic: what it is about: a package, a device, a file.
        level: how bad it is.
        fact: what was found.
        reason: why that is bad; empty if it isn't.
        cure: what to do about it; empty if there is nothing to do.
    """

    topic: str
    level: Level
    fact: str
    reason: str = ""
    cure: str = ""


def ok(topic: str, fact: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(topic, Level.OK, fact)


def warning(topic: str, fact: str, reason: str, cure: str) -> Finding:
    """Return a finding that will hurt some runs."""
    return Finding(topic, Level.WARNING, fact, reason, cure)


def problem(topic: str, fact: str, reason: str, cure: str) -> Finding:
    """Return a finding that keeps runs from working."""
    return Finding(topic, Level.PROBLEM, fact, reason, cure)


def examine(topic: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return what a check finds; its failure is a finding, too.

    >>> examine("disk", lambda: 1 / 0)[0].fact
    'cannot be examined: ZeroDivisionError: division by zero'
    """
    try:
        return list(check())
    except Exception as error:
        fact = f"cannot be examined: {named(error)}"
        return [warning(topic, fact, "the check itself failed", "see whether the other findings explain it")]


def named(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
