"""Read ``benchmark.json`` of a benchmark set: where its images come from, and the kind of its LQ."""

import hashlib
from pathlib import Path
from typing import Any

from gramgan_plugin.data.images import list_images
from gramgan_plugin.functional.matlab_bicubic import KINDS, MATLAB_BICUBIC
from gramgan_plugin.utils.io import MOST_BYTES, file_sha256, parse_json, real_path
from gramgan_plugin.utils.text import printable

RECORD = "benchmark.json"
FORMAT = 1
OTHER = "other"


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over a folder's image files, equal to ``sha256sum * | sha256sum`` (with ``LC_ALL=C``)."""
    names = sorted(list_images(folder), key=lambda name: name.encode("utf-8", "surrogateescape"))
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{file_sha256(folder / name)}  {name}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def describe_lq(record: dict[str, Any]) -> str:
    """Return the kind of LQ in words.

    Example:
        >>> describe_lq({"kind": "other", "from": "flat folder", "largest_difference": 12, "mean_difference": 0.912})
        "flat folder's, up to 12 levels off matlab-bicubic (mean 0.91)"
        >>> describe_lq({"kind": "matlab-bicubic", "from": "made"})
        'matlab-bicubic, made by basicsr prepare'
        >>> describe_lq({"kind": "matlab-uint8", "from": "EDSR"})
        "matlab-uint8, EDSR's"
    """
    source = printable(str(record["from"]))
    kind = record["kind"]
    if kind in KINDS:
        return f"{kind}, made by basicsr prepare" if source == "made" else f"{kind}, {source}'s"
    return (
        f"{source}'s, up to {int(record['largest_difference'])} levels off {MATLAB_BICUBIC} "
        f"(mean {float(record['mean_difference']):.2f})"
    )


def recorded_lq(gt: Path, lq: Path) -> str | None:
    """Return the kind of LQ in a folder, as recorded in ``benchmark.json``.

    Args:
        gt: the folder of GT.
        lq: the folder of LQ.

    Returns:
        The kind in words; None if this pair of folders is not recorded, or LQ has changed since.
    """
    path = real_path(lq).parent / RECORD
    try:
        with path.open("rb") as file:
            record = parse_json(file.read(MOST_BYTES))
        if record["format"] != FORMAT or real_path(gt) != path.parent / record["gt"]["folder"]:
            return None
        (found,) = (one for one in record["lq"].values() if one["folder"] == real_path(lq).name)
        return describe_lq(found) if found["sha256"] == folder_digest(lq) else None
    # There is no record, or another program wrote it.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
