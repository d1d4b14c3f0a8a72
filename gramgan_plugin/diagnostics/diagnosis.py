"""Findings, and a function that collects them from checks that may fail."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from gramgan_plugin.utils.text import first_line


class Level(StrEnum):
    """The level of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """A fact about the machine.

    Attributes:
        topic: its subject: a package, a device, a file.
        level: whether it is a problem.
        fact: what was found.
        reason: why that is a problem; empty if it is not.
        cure: what to do; empty if there is nothing to do.
    """

    topic: str
    level: Level
    fact: str
    reason: str = ""
    cure: str = ""


def ok(topic: str, fact: str) -> Finding:
    """Return a finding that is no problem."""
    return Finding(topic, Level.OK, fact)


def warning(topic: str, fact: str, reason: str, cure: str) -> Finding:
    """Return a finding that is a problem for some runs."""
    return Finding(topic, Level.WARNING, fact, reason, cure)


def problem(topic: str, fact: str, reason: str, cure: str) -> Finding:
    """Return a finding with which runs cannot work."""
    return Finding(topic, Level.PROBLEM, fact, reason, cure)


def examine(topic: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of a check; if it fails, return that as a finding.

    >>> examine("disk", lambda: 1 / 0)[0].fact
    'cannot be checked: ZeroDivisionError: division by zero'
    """
    try:
        return list(check())
    except Exception as error:
        fact = f"cannot be checked: {named(error)}"
        return [warning(topic, fact, "the check itself failed", "check whether the other findings explain it")]


def named(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
