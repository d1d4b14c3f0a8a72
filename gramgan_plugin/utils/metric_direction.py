"""Which values of a metric of ``val.metrics`` are better."""

from collections.abc import Mapping
from typing import Any

LOWER_IS_BETTER = (
    "calculate_niqe",
    "calculate_mse",
    "calculate_lpips",
    "calculate_dists",
    "calculate_gmsd",
    "calculate_texture_distance",
    "calculate_patch_swd",
)


def lower_is_better(block: Mapping[str, Any]) -> bool:
    """Return whether lower values of a metric are better: as its option block says, or else as is known of its type.

    >>> lower_is_better({"type": "calculate_niqe"}), lower_is_better({"type": "calculate_psnr"})
    (True, False)
    >>> lower_is_better({"type": "calculate_mine", "better": "lower"})
    True
    """
    better = block.get("better")
    return better == "lower" if better is not None else block.get("type") in LOWER_IS_BETTER
