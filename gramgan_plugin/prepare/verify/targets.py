"""Find the LMDBs to verify for a path: a prepared folder, one LMDB, or a pair."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.staging import UNFINISHED

GT = "GT.lmdb"
LQ = re.compile(r"LQ_x(?P<scale>[1-9]\d?)\.lmdb")


@dataclass(frozen=True)
class Target:
    """The LMDBs to verify.

    Attributes:
        path: as given.
        first: the GT LMDB, or the only one.
        lq: LQ LMDBs with their scales; None to derive the scale from the images.
    """

    path: Path
    first: Path
    lq: list[tuple[Path, int | None]] = field(default_factory=list)


def find_target(path: Path, lq: Path | None = None, scale: int | None = None) -> Target:
    """Find the LMDBs to verify for a path.

    Args:
        path: a prepared folder (``GT.lmdb`` and ``LQ_xS.lmdb``), or an LMDB.
        lq: the LQ LMDB of the GT LMDB at ``path``.
        scale: factor between the two; None to take it from their names or sizes.

    Raises:
        UserError: if the path is neither, or is still being written.
    """
    path = expanded(path)
    if scale is not None and scale < 1:
        raise UserError(f"--scale {scale}: must be at least 1")
    if not path.is_dir():
        raise UserError(
            f"{path}: {'not a folder' if path.exists() else 'no such folder'}; name an LMDB or what holds it"
        )
    if any(part.endswith(UNFINISHED) for part in path.absolute().parts):
        raise UserError(f"{path}: is still being written, or was left behind; run the same `basicsr prepare` again")
    if (path / "data.mdb").is_file():
        if lq is None and scale is not None:
            raise UserError(f"--scale: {path} is a single LMDB; name the LQ LMDB with --lq")
        return Target(path, path, [] if lq is None else [(expanded(lq), scale or _scale_of(lq))])
    if lq is not None:
        raise UserError(f"{path}: not an LMDB (a folder with data.mdb); with --lq, name the GT LMDB itself")
    if not (path / GT / "data.mdb").is_file():
        raise UserError(f"{path}: neither an LMDB (a folder with data.mdb) nor a prepared folder (with {GT} in it)")
    found = sorted((int(match["scale"]), entry) for entry in path.iterdir() if (match := LQ.fullmatch(entry.name)))
    return Target(path, path / GT, [(entry, scale or own) for own, entry in found])


def _scale_of(lq: Path) -> int | None:
    match = LQ.fullmatch(lq.name)
    return None if match is None else int(match["scale"])
