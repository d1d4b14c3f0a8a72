"""Looking into nested sections of which any may be missing or something else."""

from collections.abc import Mapping
from typing import Any


def section(block: Any, *path: str) -> dict[str, Any]:
    """The section at ``path``, or an empty one where none stands.

    >>> section({"train": {"optim_g": None}}, "train", "optim_g")
    {}
    """
    for key in path:
        block = block.get(key) if isinstance(block, Mapping) else None
    return dict(block) if isinstance(block, Mapping) else {}
