"""Check the form of a training state before it is used."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gramgan_plugin.utils.io import is_count

# More than any training has: a schedule may be stepped that often.
MOST_ITERATIONS = 10**7


def check_form(content: Any) -> None:
    """Check that a training state has all its parts, each of the right type.

    Raises:
        ValueError: naming the first wrong part, and what it should be.
    """
    _require(isinstance(content, Mapping), "it is not a mapping")
    for key in ("iter", "epoch"):
        value = content.get(key, 0)
        _require(is_count(value) and value <= MOST_ITERATIONS, f"'{key}' is not a number of iterations or epochs")
    for key in ("optimizers", "schedulers"):
        _require(is_list_of(content.get(key), Mapping), f"'{key}' is not a list of mappings")
    for number, optimizer in enumerate(content["optimizers"]):
        where = f"optimizers.{number}"
        _require(isinstance(optimizer.get("state"), Mapping), f"'{where}.state' is not a mapping")
        _require(
            is_list_of(optimizer.get("param_groups"), Mapping), f"'{where}.param_groups' is not a list of mappings"
        )
        _require(is_list_of(list(optimizer["state"].values()), Mapping), f"'{where}.state' does not hold mappings")
        ids = [one for group in optimizer["param_groups"] for one in as_list(group.get("params"))]
        _require(all(map(is_count, ids)), f"'{where}.param_groups' has params that are not whole numbers")
        _require(len(set(ids)) == len(ids), f"'{where}.param_groups' names a parameter twice")
    settings = [content["schedulers"], *(optimizer["param_groups"] for optimizer in content["optimizers"])]
    _require(all(map(_has_no_tensor, settings)), "a schedule or 'param_groups' holds a tensor")
    scaler = content.get("scaler")
    _require(scaler is None or isinstance(scaler, Mapping), "'scaler' is not a mapping")
    _require(all(map(is_finite, (scaler or {}).values())), "'scaler' does not hold finite numbers")
    _require(
        content.get("random") is None or is_list_of(content["random"], Mapping), "'random' is not a list of mappings"
    )


def _has_no_tensor(value: Any) -> bool:
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return not isinstance(value, Tensor) and all(map(_has_no_tensor, members))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def as_list(value: Any) -> list[Any]:
    """Return the members of a list or tuple, or a list of the value itself if it is neither."""
    return list(value) if isinstance(value, list | tuple) else [value]


def is_list_of(value: Any, kind: Any) -> bool:
    """Return whether a value is a list or tuple of members of a type or types."""
    return isinstance(value, list | tuple) and all(isinstance(member, kind) for member in value)


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number and not a bool; whole numbers may have at most 63 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
