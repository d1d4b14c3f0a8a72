"""What the check of files says, for the tests of its parts."""

from typing import Any

from gramgan_plugin.config import check_files
from gramgan_plugin.errors import OptionError


def problems(options: dict[str, Any], **how: Any) -> list[str]:
    """The lines of its errors; none if it finds nothing wrong."""
    try:
        check_files(options, **how)
    except OptionError as error:
        return str(error).splitlines()
    return []
