"""``benchmark.json`` beside a benchmark set's folders: where its images come from, and of which kind its LQ is."""

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
    """Return the SHA-256 over the image files of a folder, as ``sha256sum * | sha256sum`` gives it (``LC_ALL=C``)."""
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
    """Return what ``benchmark.json`` says of the LQ in a folder.

    Args:
        gt: the folder of GT.
        lq: the folder of LQ.

    Returns:
        The kind in words; None if nothing is recorded for this pair of folders, or LQ has changed since.
    """
    path = real_path(lq).parent / RECORD
    try:
        with path.open("rb") as file:
            record = parse_json(file.read(MOST_BYTES))
        if record["format"] != FORMAT or real_path(gt) != path.parent / record["gt"]["folder"]:
            return None
        (found,) = (one for one in record["lq"].values() if one["folder"] == real_path(lq).name)
        return describe_lq(found) if found["sha256"] == folder_digest(lq) else None
    # None, or nothing that was written here.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
