"""The outcome of a verification, as data and as text."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gramgan_plugin.version import __version__

LISTED = 20  # things that are printed of a check
KEPT = 1000  # things that the JSON file names of a check


class State(Enum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"
    SKIPPED = "skipped"


@dataclass
class Check:
    """One check of one LMDB or pair.

    Attributes:
        of: what was checked.
        name: of the check.
        state: how it ended.
        text: the outcome in a line.
        items: key and what is the matter with it; the first ``KEPT``.
        count: of all items.
        facts: numbers behind the text.
    """

    of: str
    name: str
    state: State = State.OK
    text: str = ""
    items: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def wrong(self, key: str, what: str) -> None:
        """Add something that is wrong."""
        self.state = State.WRONG
        self.count += 1
        if len(self.items) < KEPT:
            self.items.append((key, what))

    def end(self, fine: str, things: str) -> None:
        """Write the text: ``fine``, or how many ``things`` are wrong."""
        self.text = f"{self.count} {things}" if self.state is State.WRONG else fine

    def skip(self, why: str) -> "Check":
        """Say that it was not made."""
        self.state, self.text = State.SKIPPED, why
        return self

    def lines(self) -> list[str]:
        """As printed: the check, then the first things that are wrong."""
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
        """Whether nothing is wrong."""
        return all(check.state is not State.WRONG for check in self.checks)

    def as_data(self) -> dict[str, Any]:
        """Return it in types that JSON has."""
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
