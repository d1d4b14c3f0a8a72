"""Which LQ a table was measured with: two kinds of bicubic differ by more than two methods do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.data.benchmark_record import MATLAB_BICUBIC, recorded_lq
from gramgan_plugin.data.manifest import read_manifest
from gramgan_plugin.errors import UserError
from gramgan_plugin.files import expanded, real_path

NOT_RECORDED = "not recorded"
ON_THE_FLY = f"{MATLAB_BICUBIC}, made on the fly"
PREPARED = f"{MATLAB_BICUBIC}, made by basicsr prepare"


def lq_kind(options: Mapping[str, Any]) -> str:
    """The kind of a test set's LQ in words, from what ``basicsr prepare`` recorded beside it.

    Args:
        options: the set's block: ``dataroot_gt``, and ``dataroot_lq`` or ``lq: bicubic``.

    Returns:
        "not recorded" where nothing is known, and where LQ has changed since it was prepared.
    """
    if options.get("lq") == "bicubic":
        return ON_THE_FLY
    gt, lq = options.get("dataroot_gt"), options.get("dataroot_lq")
    if not isinstance(gt, str | Path) or not isinstance(lq, str | Path):  # none, or lists of them
        return NOT_RECORDED
    gt, lq = expanded(gt), expanded(lq)
    if lq.suffix == ".lmdb":
        made = _lmdb_made(lq)
    elif (found := recorded_lq(gt, lq)) is not None:
        return found
    else:
        made = _held_out_made(lq)
    return PREPARED if made == MATLAB_BICUBIC else NOT_RECORDED


def _lmdb_made(lq: Path) -> Any:
    try:
        return (read_manifest(lq) or {}).get("lq")
    except UserError:
        return None


def _held_out_made(lq: Path) -> Any:
    """``prepare --hold-out`` writes photos to ``DIR/test/LQ_x4``, and ``DIR/dataset.json``."""
    folder = real_path(lq).parent
    if folder.name != "test":
        return None
    try:
        record = json.loads((folder.parent / "dataset.json").read_text(encoding="utf-8"))
        return record.get("lq") if lq.name == f"LQ_x{record.get('scale')}" else None
    except (OSError, ValueError, AttributeError):
        return None
