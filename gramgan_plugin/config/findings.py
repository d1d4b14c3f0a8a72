"""The errors and warnings of a check, each one line that begins with a key's full path."""

from collections.abc import Iterable, Mapping
from typing import Any

from gramgan_plugin.config.keys import is_number
from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import did_you_mean, shortened, shown_value

MOST = 50  # errors, and warnings, of one check; further ones are only counted
LARGEST = 1e15  # no option needs more, and Adam squares gradients, in float32 up to 3e38
LONGEST = 4000  # characters of a text or key, the length limit of paths


class Findings:
    """Errors and warnings, each reported once.

    Attributes:
        hints: full path of a key that may be unknown -> what to do about it.

    >>> found = Findings()
    >>> found.error("scale", "must be at least 1, not 0")
    >>> found.errors
    ['scale: must be at least 1, not 0']
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.hints: dict[str, str] = {}
        self._left_out = 0

    def error(self, path: str, text: str) -> None:
        """Add an error at a key, unless the key has one."""
        if not any(known.startswith(f"{path}: ") for known in self.errors):
            self._note(f"{path}: {text}")

    def catch(self, error: Exception) -> None:
        """Add an error whose message already begins with the key's path."""
        line = _one_line(str(error))
        if line not in self.errors:
            self._note(line)

    def warn(self, path: str, text: str) -> None:
        """Add a warning about an option that is allowed but may not do what the user expects."""
        line = _one_line(f"{path}: {text}")
        if line not in self.warnings and len(self.warnings) < MOST:
            self.warnings.append(line)

    def unknown(self, path: str, key: str, known: Iterable[str], of: str = "") -> None:
        """Add an error about a key that nothing reads."""
        where = f"{path}.{key}" if path else key
        if len(self.errors) >= MOST:  # comparing with all names is slow
            self._left_out += 1
            return
        if where in self.hints:
            self.error(where, f"unknown option{of and f' of {of}'}; {self.hints[where]}")
            return
        names = list(known)
        there_are = f"; there are {', '.join(names)}" if len(names) <= 8 else "; `basicsr schema --markdown` lists all"
        there_are = there_are if names else "; there are none"
        hint = did_you_mean(key, names, there_are)
        self.error(where, f"unknown option{of and f' of {of}'}{hint}")

    def raise_errors(self) -> list[str]:
        """Raise all errors as one exception, or return the warnings.

        Raises:
            OptionError: one line per problem.
        """
        if self.errors:
            more = [f"and {self._left_out} more mistakes"] if self._left_out else []
            raise OptionError("\n".join(self.errors + more))
        return self.warnings

    def _note(self, line: str) -> None:
        if len(self.errors) < MOST:
            self.errors.append(_one_line(line))
        else:
            self._left_out += 1


def with_text_keys(opt: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Return a copy of options without values and keys that later checks cannot handle; each is an error.

    Removed are keys that are numbers, flags or dates (``1:``, ``on:``). Null replaces values that contain themselves,
    numbers above ``LARGEST``, which would overflow, and texts above ``LONGEST``.
    """
    copies: dict[int, Any] = {}

    def copy(value: Any, path: str, above: tuple[int, ...]) -> Any:
        if is_number(value) and abs(value) > LARGEST:
            found.error(path, f"must be at most {LARGEST:g}, not {shown_value(value)}")
            return None
        if isinstance(value, str) and len(value) > LONGEST:
            found.error(path, f"must be at most {LONGEST} characters, not {shown_value(value)} of {len(value):,d}")
            return None
        if not isinstance(value, Mapping | list | tuple):
            return value
        if id(value) in above:
            found.error(path, "contains itself")
            return None
        if id(value) in copies:
            return copies[id(value)]
        above = (*above, id(value))
        if isinstance(value, Mapping):
            result: Any = {}
            for key, member in value.items():
                if isinstance(key, str) and len(key) > LONGEST:
                    found.error(path or "options", f"unknown option {shown_value(key)} of {len(key):,d} characters")
                elif isinstance(key, str):
                    result[key] = copy(member, f"{path}.{key}" if path else key, above)
                else:
                    found.error(path or str(key), f"the key {shown_value(key)} is not text; put it in quotes")
        else:
            result = [copy(member, path, above) for member in value]
        copies[id(value)] = result
        return result

    whole = copy(opt, "", ())
    return whole if isinstance(whole, dict) else {}


def _one_line(text: str) -> str:
    return shortened(" ".join(text.splitlines()))
