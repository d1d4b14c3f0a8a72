"""Read images from a tar as a stream."""

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

HEADER_BYTES = 2**21  # a tar header may have text of any length, which tarfile reads at once


def tar_images(
    path: Path, file: IO[bytes], start: bytes, limits: Limits, on_refused: Callable[[str, str], None]
) -> Iterator[tuple[str, bytes]]:
    """Yield the images of a tar, as ``archives.images_in`` does.

    Args:
        path: the archive.
        file: the opened archive, at its start.
        start: its first bytes, which show its compression.
        limits: limits for its content.
        on_refused: called with the name and the reason of each refused member.
    """
    packed = path.stat().st_size
    stream = _Metered(path, _unpacked(file, start), limits, packed)
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(iter(archive.next, None), start=1):
                check_count(path, count, limits)
                # The claimed offset of the next header: tarfile would read up to it, block by block, for years.
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
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
        stream.finish()
    except Exception as error:
        raise_damaged(error, path)


def _check_tar_member(member: tarfile.TarInfo, name: str | None, limits: Limits) -> None:
    if member.issym() or member.islnk():
        raise Refused("a symbolic link" if member.issym() else "a hard link")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise Refused("a sparse file" if member.issparse() else "not a regular file")
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
    """A tar's stream with a limit: tarfile alone would read as much as the headers claim."""

    def __init__(self, path: Path, stream: IO[bytes], limits: Limits, packed: int) -> None:
        self.path, self.stream, self.limits, self.packed = path, stream, limits, packed
        self.total, self.allowed, self.ended = 0, HEADER_BYTES, False

    def allow(self, end: int) -> None:
        """Allow reading up to the end of a member and the header after it."""
        self.allowed = end + HEADER_BYTES

    def read(self, size: int | None = -1) -> bytes:
        """Return at most ``size`` bytes."""
        data = self.stream.read(size if size is not None else -1)
        self.total += len(data)
        self.ended = self.ended or not data
        if self.total > self.allowed:
            raise UserError(f"{self.path}: a header of more than {HEADER_BYTES} bytes: damaged or malicious")
        check_bytes(self.path, self.total, self.packed, self.limits)
        return data

    def finish(self) -> None:
        """Read to the end, where checksums are; a tar ends with a block of zeros."""
        if self.ended:
            raise EOFError("its end is missing")
        while self.total + 2**16 <= self.allowed and self.read(2**16):
            pass
