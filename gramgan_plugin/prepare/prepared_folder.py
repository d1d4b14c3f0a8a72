"""Recognise a folder that ``basicsr prepare`` has written, which it may replace."""

from pathlib import Path

from gramgan_plugin.utils.staging import FolderType

MARKER = "names.jsonl"  # in every prepared folder; a folder without it is never replaced


def _why_not_data_set(path: Path) -> str | None:
    if path.is_dir() and ((path / MARKER).is_file() or not any(path.iterdir())):
        return None
    return f"was not written by 'prepare' (no {MARKER} in it)"


DATA_SET = FolderType(MARKER, _why_not_data_set)
