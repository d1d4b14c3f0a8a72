"""The outcome of a verification, as data and as text."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gramgan_plugin.version import __version__

LISTED = 20  # printed problems of a check
KEPT = 1000  # problems of a check in the JSON file


class State(Enum):
    """The result of a check."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"
    SKIPPED = "skipped"


@dataclass
class Check:
    """One check of one LMDB or pair.

    Attributes:
        of: what was checked.
        name: the check's name.
        state: its result.
        text: the result in a line.
        items: key and problem; the first ``KEPT``.
        count: number of all problems.
        facts: the numbers behind the text.
    """

    of: str
    name: str
    state: State = State.OK
    text: str = ""
    items: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def wrong(self, key: str, what: str) -> None:
        """Add a problem."""
        self.state = State.WRONG
        self.count += 1
        if len(self.items) < KEPT:
            self.items.append((key, what))

    def end(self, fine: str, things: str) -> None:
        """Set the text: ``fine``, or the number of ``things``."""
        self.text = f"{self.count} {things}" if self.state is State.WRONG else fine

    def skip(self, why: str) -> "Check":
        """Mark the check as skipped."""
        self.state, self.text = State.SKIPPED, why
        return self

    def lines(self) -> list[str]:
        """Return the lines to print: the check, then its first problems."""
        shown = [f"    {key}: {what}" if key else f"    {what}" for key, what in self.items[:LISTED]]
        if self.count > len(shown) > 0:
            shown.append(f"    and {self.count - len(shown)} more")
        return [f"{self.state.value:<7} {self.of}: {self.name}: {self.text}", *shown]


@dataclass
class Verification:
    """All checks of one path."""

    path: str
    checks: list[Check] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether no check has found a problem."""
        return all(check.state is not State.WRONG for check in self.checks)

    def as_data(self) -> dict[str, Any]:
        """Return the verification in JSON types."""
        return {
            "path": self.path,
            "fine": self.fine,
            "made_by": f"gramgan-plugin {__version__}",
            "checks": [
                {
                    "of": check.of,
                    "name": check.name,
                    "state": check.state.value,
                    "text": check.text,
                    "count": check.count,
                    "items": [{"key": key, "what": what} for key, what in check.items],
                    **check.facts,
                }
                for check in self.checks
            ],
        }
