"""Report how a test set's LQ was made: results differ more between two kinds of bicubic than between methods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.data.benchmark_record import recorded_lq
from gramgan_plugin.data.lmdb_manifest import read_manifest
from gramgan_plugin.data.pairs import LQ_MADE
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.matlab_bicubic import KINDS
from gramgan_plugin.utils.io import expanded, parse_json, real_path

NOT_RECORDED = "not recorded"


def lq_kind(options: Mapping[str, Any]) -> str:
    """Return the kind of a test set's LQ in words, as ``basicsr prepare`` recorded it.

    Args:
        options: the set's block: ``dataroot_gt``, and ``dataroot_lq`` or ``lq``.

    Returns:
        The kind; "not recorded" if it is not known, or if LQ has changed since it was prepared.
    """
    made = LQ_MADE.get(str(options.get("lq")))
    if made is not None:
        return f"{made}, made on the fly"
    gt, lq = options.get("dataroot_gt"), options.get("dataroot_lq")
    if not isinstance(gt, str | Path) or not isinstance(lq, str | Path):  # none, or a list
        return NOT_RECORDED
    gt, lq = expanded(gt), expanded(lq)
    if lq.suffix == ".lmdb":
        made = _lmdb_made(lq)
    elif (found := recorded_lq(gt, lq)) is not None:
        return found
    else:
        made = _held_out_made(lq)
    return f"{made}, made by basicsr prepare" if made in KINDS else NOT_RECORDED


def _lmdb_made(lq: Path) -> Any:
    try:
        return (read_manifest(lq) or {}).get("lq")
    except UserError:
        return None


def _held_out_made(lq: Path) -> Any:
    """Read how LQ was made from the record of ``prepare --hold-out``: ``DIR/dataset.json`` for ``DIR/test/LQ_x4``."""
    folder = real_path(lq).parent
    if folder.name != "test":
        return None
    try:
        record = parse_json((folder.parent / "dataset.json").read_bytes())
        return record.get("lq") if lq.name == f"LQ_x{record.get('scale')}" else None
    except (OSError, ValueError, AttributeError):
        return None
