"""What a check found: errors and warnings, each one line that begins with a key's full path."""

from collections.abc import Iterable, Mapping
from typing import Any

from gramgan_plugin.errors import OptionError
from gramgan_plugin.registration import did_you_mean


class Findings:
    """Errors and warnings, each said once.

    >>> found = Findings()
    >>> found.error("scale", "must be at least 1, not 0")
    >>> found.errors
    ['scale: must be at least 1, not 0']
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def error(self, path: str, text: str) -> None:
        """Note an error at a key; of several at one key, the first counts."""
        line = _one_line(f"{path}: {text}")
        if not any(known.startswith(f"{path}: ") for known in self.errors):
            self.errors.append(line)

    def catch(self, error: Exception) -> None:
        """Note an error whose message has the key's path already."""
        for line in str(error).splitlines():
            if line not in self.errors:
                self.errors.append(line)

    def warn(self, path: str, text: str) -> None:
        """Note something that is allowed but not as it looks."""
        line = _one_line(f"{path}: {text}")
        if line not in self.warnings:
            self.warnings.append(line)

    def unknown(self, path: str, key: str, known: Iterable[str], of: str = "") -> None:
        """Note a key that nothing reads."""
        where = f"{path}.{key}" if path else key
        names = list(known)
        hint = did_you_mean(key, names)
        if "did you mean" not in hint:
            hint = f"; there are {', '.join(names)}" if len(names) <= 8 else "; `basicsr schema --markdown` lists all"
        self.error(where, f"unknown option{of and f' of {of}'}{hint}")

    def raise_errors(self) -> list[str]:
        """Raise all errors as one, or return the warnings.

        Raises:
            OptionError: one line a problem.
        """
        if self.errors:
            raise OptionError("\n".join(self.errors))
        return self.warnings


def with_text_keys(opt: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """A copy without keys that are no text (``1:``, ``on:``), which are noted, as is a value that holds itself."""
    copies: dict[int, Any] = {}

    def copy(value: Any, path: str, above: tuple[int, ...]) -> Any:
        if not isinstance(value, Mapping | list | tuple):
            return value
        if id(value) in above:
            found.error(path, "holds itself")
            return None
        if id(value) in copies:
            return copies[id(value)]
        above = (*above, id(value))
        if isinstance(value, Mapping):
            result: Any = {}
            for key, member in value.items():
                if isinstance(key, str):
                    result[key] = copy(member, f"{path}.{key}" if path else key, above)
                else:
                    found.error(path or str(key), f"the key {key!r} is not text; put it in quotes")
        else:
            result = [copy(member, path, above) for member in value]
        copies[id(value)] = result
        return result

    whole = copy(opt, "", ())
    return whole if isinstance(whole, dict) else {}


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))
