"""Rules for what is read from an archive and what is refused."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from gramgan_plugin.data.images import SUFFIXES
from gramgan_plugin.errors import UserError, os_problem
from gramgan_plugin.utils.text import printable

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
NESTED_SUFFIXES = (*ARCHIVE_SUFFIXES, ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")
LONGEST_REASON = 100  # characters of a parser's message, which may quote the archive
FREE_BYTES = 2**26  # the ratio is not checked below this size: a small blank image packs well


@dataclass(frozen=True)
class Limits:
    """Limits for an archive.

    Attributes:
        members: number of members of any type.
        bytes: of all images, unpacked; in a compressed tar of all members.
        member_bytes: of one image; as much memory is needed.
        ratio: unpacked to packed bytes, for a member and for the archive.
    """

    members: int = 500_000
    bytes: int = 2 * 10**11
    member_bytes: int = 2**29
    ratio: float = 100.0


DEFAULT_LIMITS = Limits()


class Refused(Exception):  # noqa: N818  (a verdict on one member)
    """The reason why a member is refused."""


def image_name(name: str, folder: bool) -> str | None:
    """Return the member's name in a safe form: relative, with ``/``.

    Args:
        name: as stored in the archive.
        folder: whether the member is a folder.

    Returns:
        The name; None if the member is not an image.

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
    """Refuse a second member with the same name.

    Args:
        name: its safe form, or None if the member is not an image.
        seen: the names read so far; this one is added.

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
    """Refuse an archive with too many members.

    Raises:
        UserError: naming the archive.
    """
    if count > limits.members:
        raise UserError(f"{path}: more than {limits.members} members; split it, or unpack it yourself")


def check_bytes(path: Path, unpacked: int, packed: int, limits: Limits) -> None:
    """Refuse an archive that is too large unpacked, or whose ratio shows an archive bomb.

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
    """Raise an error of reading an archive as a ``UserError`` about the archive, unless the machine caused it.

    The exceptions that Python's modules raise for damaged headers cannot be listed: ``ValueError`` for a number with
    5,000 digits, ``RecursionError`` for nested headers, ...

    Raises:
        UserError: naming the archive.
        Exception: the error itself, if it is a ``UserError``, or about a disk, permissions or memory.
    """
    if isinstance(error, UserError | MemoryError) or (isinstance(error, OSError) and os_problem(error, path)):
        raise error
    raise UserError(f"{path}: damaged, cut short or not an archive: {damage(error)}") from error


def damage(error: Exception) -> str:
    """Return a parser's message, shortened and safe to show."""
    return printable(str(error))[:LONGEST_REASON] or type(error).__name__
