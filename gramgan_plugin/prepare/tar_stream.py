"""Images out of a tar, read as a stream from begin to end."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.archive_rules import (
    Limits,
    Refused,
    check_bytes,
    check_count,
    check_once,
    check_size,
    image_name,
    raise_damaged,
)

HEADER_BYTES = 2**21  # tar's headers may hold text of any length, which tarfile reads at once


def tar_images(
    path: Path, file: IO[bytes], start: bytes, limits: Limits, on_refused: Callable[[str, str], None]
) -> Iterator[tuple[str, bytes]]:
    """As ``archives.images_in``, of a tar.

    Args:
        path: the archive.
        file: it, opened, at its begin.
        start: its first bytes, which show how it is packed.
        limits: what it may hold.
        on_refused: called with the name and the reason.
    """
    packed = path.stat().st_size
    stream = _Metered(path, _unpacked(file, start), limits, packed)
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(iter(archive.next, None), start=1):
                check_count(path, count, limits)
                # Where the next header is said to lie: tarfile would read on towards it, block by block, for years.
                check_bytes(path, archive.offset, packed, limits)
                stream.allow(archive.offset)
                name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                try:
                    safe = image_name(name, member.isdir())
                    _check_tar_member(member, safe, limits)
                    check_once(safe, seen)
                except Refused as refused:
                    on_refused(name, str(refused))
                    continue
                opened = archive.extractfile(member) if safe is not None else None
                if safe is not None and opened is not None:
                    yield safe, opened.read()
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
        stream.finish()
    except Exception as error:
        raise_damaged(error, path)


def _check_tar_member(member: tarfile.TarInfo, name: str | None, limits: Limits) -> None:
    if member.issym() or member.islnk():
        raise Refused("a symbolic link" if member.issym() else "a hard link")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise Refused("a sparse file" if member.issparse() else "no regular file")
    if name is not None:
        check_size(member.size, limits)


def _unpacked(file: IO[bytes], start: bytes) -> IO[bytes]:
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file)
    return file


class _Metered(io.RawIOBase):
    """The bytes of a tar, counted: tarfile itself reads on as long as the headers tell it to."""

    def __init__(self, path: Path, stream: IO[bytes], limits: Limits, packed: int) -> None:
        self.path, self.stream, self.limits, self.packed = path, stream, limits, packed
        self.total, self.allowed, self.ended = 0, HEADER_BYTES, False

    def allow(self, end: int) -> None:
        """Let the member's bytes pass, and the header after it."""
        self.allowed = end + HEADER_BYTES

    def read(self, size: int | None = -1) -> bytes:
        """At most ``size`` bytes."""
        data = self.stream.read(size if size is not None else -1)
        self.total += len(data)
        self.ended = self.ended or not data
        if self.total > self.allowed:
            raise UserError(f"{self.path}: a header of more than {HEADER_BYTES} bytes: damaged, or made to do harm")
        check_bytes(self.path, self.total, self.packed, self.limits)
        return data

    def finish(self) -> None:
        """Read to the end, for that is where checksums stand; the end of a tar is a block of zeros."""
        if self.ended:
            raise EOFError("its end is missing")
        while self.total + 2**16 <= self.allowed and self.read(2**16):
            pass
