"""Read, merge, override, check and resolve option files."""

from gramgan_plugin.config.check import check_options
from gramgan_plugin.config.file_checks import check_all, check_files
from gramgan_plugin.config.load import find_option_file, load_options
from gramgan_plugin.config.resolve import resolve_options

__all__ = [
    "check_all",
    "check_files",
    "check_options",
    "find_option_file",
    "load_options",
    "resolve_options",
]
