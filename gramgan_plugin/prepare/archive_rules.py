"""What is taken out of an archive, and what is refused."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from gramgan_plugin.data.images import SUFFIXES
from gramgan_plugin.errors import UserError, os_problem
from gramgan_plugin.utils.text import printable

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
NESTED_SUFFIXES = (*ARCHIVE_SUFFIXES, ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")
LONGEST_REASON = 100  # characters of a parser's message: it may repeat what stands in the archive
FREE_BYTES = 2**26  # the ratio is not checked below: a small blank image packs well


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        members: of all kinds.
        bytes: of all images, unpacked; of all members where a tar is compressed.
        member_bytes: of one image; so much memory is needed.
        ratio: unpacked to packed bytes, of a member and of the whole.
    """

    members: int = 500_000
    bytes: int = 2 * 10**11
    member_bytes: int = 2**29
    ratio: float = 100.0


DEFAULT_LIMITS = Limits()


class Refused(Exception):  # noqa: N818  (a verdict on one member)
    """Why a member is not taken."""


def image_name(name: str, folder: bool) -> str | None:
    """Return the member's name in a safe form: relative, with ``/``.

    Args:
        name: as it stands in the archive.
        folder: it is none of a file.

    Returns:
        None for what is not an image.

    Raises:
        Refused: with the reason.
    """
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed):
        raise Refused("an absolute path")
    parts = PurePosixPath(slashed).parts
    if ".." in parts:
        raise Refused("a path with '..'")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    if folder or hidden or not parts:
        return None
    if parts[-1].lower().endswith(NESTED_SUFFIXES):
        raise Refused("an archive in the archive; unpack it yourself")
    if PurePosixPath(parts[-1]).suffix.lower() not in SUFFIXES:
        return None
    return "/".join(parts)


def check_once(name: str | None, seen: set[str]) -> None:
    """Refuse a second member of a name.

    Args:
        name: its safe form, or None for what is not an image.
        seen: the names taken so far; this one is added.

    Raises:
        Refused: with the reason.
    """
    if name in seen:
        raise Refused("a second member of this name")
    if name is not None:
        seen.add(name)


def check_size(size: int, limits: Limits) -> None:
    """Refuse a member that is too large.

    Raises:
        Refused: with the reason.
    """
    if size > limits.member_bytes:
        raise Refused(f"{size} bytes, above the limit of {limits.member_bytes}")


def check_count(path: Path, count: int, limits: Limits) -> None:
    """Refuse an archive of too many members.

    Raises:
        UserError: naming the archive.
    """
    if count > limits.members:
        raise UserError(f"{path}: more than {limits.members} members; split it, or unpack it yourself")


def check_bytes(path: Path, unpacked: int, packed: int, limits: Limits) -> None:
    """Refuse an archive that is too large unpacked, or that was made to become so.

    Raises:
        UserError: naming the archive.
    """
    if unpacked > limits.bytes:
        raise UserError(f"{path}: more than {limits.bytes} bytes unpacked; split it, or unpack it yourself")
    if unpacked > FREE_BYTES and unpacked > limits.ratio * packed:
        raise UserError(
            f"{path}: unpacks to more than {limits.ratio:g} times its size, as photos never do; "
            "if you trust it, unpack it yourself"
        )


def raise_damaged(error: Exception, path: Path) -> NoReturn:
    """Raise what reading an archive has raised as the archive's fault, unless it is the machine's.

    Which exceptions damaged headers bring about in Python's modules cannot be listed: ``ValueError`` for a number of
    5,000 digits, ``RecursionError`` for headers of headers, ...

    Raises:
        UserError: naming the archive.
        Exception: the error itself, if it is one already, or is about a disk, permissions or memory.
    """
    if isinstance(error, UserError | MemoryError) or (isinstance(error, OSError) and os_problem(error, path)):
        raise error
    raise UserError(f"{path}: damaged, cut short or no archive: {damage(error)}") from error


def damage(error: Exception) -> str:
    """Return what a parser said, short enough and safe to show."""
    return printable(str(error))[:LONGEST_REASON] or type(error).__name__
