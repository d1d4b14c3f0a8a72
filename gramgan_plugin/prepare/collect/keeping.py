"""Write the kept photos to DIR/photos: the last stage of collecting."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from gramgan_plugin.data.images import encode_png
from gramgan_plugin.data.photos import decode_photo
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.prepare.archives import images_in
from gramgan_plugin.prepare.collect.criteria import Measured
from gramgan_plugin.prepare.collect.examine import SUFFIXES
from gramgan_plugin.prepare.collect.measuring import CannotReadError, read_file
from gramgan_plugin.prepare.collect.metadata import without_metadata
from gramgan_plugin.prepare.collect.photo_sources import Archive, SourcePhoto
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.threads import in_order

LONGEST_NAME = 48  # characters of the original name
COMPRESSION = 3  # of PNG
OURS = re.compile(r"[0-9a-f]{16}b?_[A-Za-z0-9-]*\.(bmp|jpg|png|ppm|tif|webp)")
CHANGED = "its content has changed since it was measured; run again"


class Kept(NamedTuple):
    """A kept photo and its name."""

    entry: SourcePhoto
    photo: Measured
    name: str


def kept_name(entry: SourcePhoto, photo: Measured, strip: bool) -> str:
    """Return the name of a kept photo: ASCII letters, digits, ``-`` and ``_``, the same in every run.

    The hash of the content makes it unique; a part of the original name follows for readers. Without its metadata a
    photo has another name, so that files stay valid when the option changes.

    Example:
        >>> from gramgan_plugin.prepare.collect.criteria import Measured
        >>> entry = SourcePhoto("", "https://example.org/Fjord%20bei%20Bergen.JPEG?size=large", None, "https:", "", "")
        >>> kept_name(entry, Measured("0123456789abcdef" * 4, 1, format="JPEG"), strip=False)
        '0123456789abcdef_Fjord-bei-Bergen.jpg'
    """
    original = unquote(urlsplit(entry.name).path) if entry.url else entry.name.removeprefix(f"{entry.source}!")
    stem = PurePosixPath(original.replace("\\", "/")).stem
    ascii_only = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"[^A-Za-z0-9]+", "-", ascii_only).strip("-")[:LONGEST_NAME].strip("-")
    rewritten = photo.rewrite is not None or (strip and photo.format in ("TIFF", "WEBP"))
    suffix = ".png" if rewritten else SUFFIXES[photo.format]
    return f"{photo.sha256[:16]}{'b' if strip and not photo.rewrite else ''}_{cleaned}{suffix}"


def write_kept(
    kept: Sequence[Kept], archives: Sequence[Archive], folder: Path, workers: int, strip: bool, progress: bool
) -> dict[str, str]:
    """Write the photos that are missing in the folder, each under a temporary name first.

    Args:
        kept: all kept photos.
        archives: the archives that contain some of them.
        folder: ``DIR/photos``.
        workers: number of threads.
        strip: remove metadata.
        progress: report on stderr.

    Returns:
        By key, why a photo could not be written: its source is missing or has changed.

    Raises:
        UserError: if the disk is full or cannot be written.
    """
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):  # of a killed run
            leftover.unlink()
        missing = [item for item in kept if not (folder / item.name).is_file()]
    failed: dict[str, str] = {}

    def write(item: tuple[Kept, bytes | None]) -> str | None:
        (entry, photo, name), data = item
        try:
            if data is None:
                assert entry.path is not None
                data = read_file(entry.path)
        except CannotReadError as error:
            return str(error)
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            return CHANGED
        replace_file(folder / name, final_content(data, photo, strip), synced=True)
        return None

    members = {item.entry.key: item for item in missing if item.entry.path is None}
    with closing(in_order(write, _contents(missing, members, archives), workers)) as results:
        for _ in tracked(missing, "kept photo", progress):
            done = next(results, None)
            if done is None:  # the archive was damaged meanwhile and has fewer members
                break
            ((entry, _, _), _), problem = done
            members.pop(entry.key, None)
            if problem is not None:
                failed[entry.key] = problem
    return failed | dict.fromkeys(members, "no longer in the archive; run again")


def final_content(data: bytes, photo: Measured, strip: bool) -> bytes:
    """Return the file to write: unchanged, without metadata, or as PNG."""
    if photo.rewrite is None:
        content = without_metadata(data, photo.format) if strip else data
        if content is not None:
            return content
    return encode_png(decode_photo(data), COMPRESSION)


def set_aside(folder: Path, names: frozenset[str], aside: Path) -> int:
    """Move photos of earlier runs that are not among ``names`` into another folder; nothing is deleted.

    Returns:
        Their number.
    """
    count = 0
    with file_errors(aside):
        for entry in list(os.scandir(folder)):
            if entry.name not in names and OURS.fullmatch(entry.name):
                aside.mkdir(exist_ok=True)
                Path(entry.path).replace(aside / entry.name)
                count += 1
    return count


def take_back(folder: Path, names: Sequence[str], aside: Path) -> None:
    """Move photos back that :func:`set_aside` has moved and that are kept again."""
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names if aside.is_dir() else ():
            if (aside / name).is_file() and not (folder / name).exists():
                (aside / name).replace(folder / name)


def _contents(
    missing: Sequence[Kept], members: Mapping[str, Kept], archives: Sequence[Archive]
) -> Iterator[tuple[Kept, bytes | None]]:
    """Yield files first, which threads read; then members, while their archives are read again."""
    wanted = dict(members)
    yield from ((item, None) for item in missing if item.entry.path is not None)
    for archive in archives:
        left = sum(key.startswith(f"{archive.key}|") for key in wanted)
        try:
            for name, data in images_in(archive.path) if left else ():
                item = wanted.get(archive.member(name).key)
                if item is not None:
                    yield item, data
                    left -= 1
                if not left:
                    break
        except UserError:
            continue  # reported when it was measured, or as missing members now
