"""Read images from zip and tar archives, one at a time and in memory: nothing is written to the disk.

Archives are not trusted: a member with an unsafe path is refused by name, an archive that unpacks without limit is
refused as a whole.
"""

import io
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gramgan_plugin.errors import file_errors, os_problem
from gramgan_plugin.prepare.archive_rules import (
    ARCHIVE_SUFFIXES,
    DEFAULT_LIMITS,
    FREE_BYTES,
    Limits,
    Refused,
    check_bytes,
    check_count,
    check_once,
    check_size,
    damage,
    image_name,
    raise_damaged,
)
from gramgan_plugin.prepare.tar_stream import tar_images

__all__ = ["Limits", "images_in", "is_archive"]


def is_archive(path: Path) -> bool:
    """Return whether the name is that of a zip or tar archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def images_in(
    path: Path, limits: Limits = DEFAULT_LIMITS, on_refused: Callable[[str, str], None] = lambda name, reason: None
) -> Iterator[tuple[str, bytes]]:
    """Yield the images of a zip or tar (plain, gzip, bzip2, xz), recognised by the archive's first bytes.

    Other files, folders and hidden files are skipped; nested archives are not opened.

    Args:
        path: the archive.
        limits: limits for its content.
        on_refused: called with the name and the reason of each refused member: an absolute or ``..`` path, a link, a
            device, a repeated name, too large, too high a ratio, encrypted, damaged, an archive.

    Yields:
        The member's name, relative, with ``/``, and its bytes, in the archive's order.

    Raises:
        UserError: if the file is damaged, not an archive, or exceeds the limits.
    """
    with file_errors(path), path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        if start.startswith(b"PK"):
            yield from _zip_images(path, file, limits, on_refused)
        else:
            yield from tar_images(path, file, start, limits, on_refused)


def _zip_images(
    path: Path, file: IO[bytes], limits: Limits, on_refused: Callable[[str, str], None]
) -> Iterator[tuple[str, bytes]]:
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:
        raise_damaged(error, path)
    members = archive.infolist()
    check_count(path, len(members), limits)
    seen: set[str] = set()
    wanted: list[tuple[str, zipfile.ZipInfo]] = []
    for member in members:
        name = _zip_name(member)
        try:
            safe = image_name(name, name.endswith("/"))
            _check_zip_member(member, safe, limits)
            check_once(safe, seen)
        except Refused as refused:
            on_refused(name, str(refused))
            continue
        if safe is not None:
            wanted.append((safe, member))
    size = file.seek(0, io.SEEK_END)
    check_bytes(path, sum(member.file_size for _, member in wanted), size, limits)
    for name, member in wanted:
        try:
            with archive.open(member) as stream:
                data = stream.read(member.file_size)
                whole = len(data) == member.file_size and not stream.read(1)
        except Exception as error:
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and os_problem(error, path)):
                raise
            on_refused(name, _damage(error))
        else:
            if whole:
                yield name, data
            else:
                on_refused(name, "damaged: it is shorter than the archive says")


def _check_zip_member(member: zipfile.ZipInfo, name: str | None, limits: Limits) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused("a symbolic link" if kind == stat.S_IFLNK else "not a regular file")
    if name is None:
        return
    if member.flag_bits & 1:
        raise Refused("encrypted; unpack the archive yourself")
    check_size(member.file_size, limits)
    if member.file_size > FREE_BYTES and member.file_size > limits.ratio * max(member.compress_size, 1):
        raise Refused(f"{member.file_size} bytes packed in {member.compress_size}, above the limit of the ratio")


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Return a member's name; many programs write UTF-8 without the flag, which Python decodes as a DOS code page."""
    if not member.flag_bits & 0x800:
        try:
            return member.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return member.filename


def _damage(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return "packed by a method that Python does not support; unpack the archive yourself"
    return f"damaged: {damage(error)}"
