"""List the sources of a collection: folders, archives, single photos and lists of URLs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gramgan_plugin.data.images import SUFFIXES as PHOTO_SUFFIXES
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.archives import ARCHIVE_SUFFIXES, is_archive
from gramgan_plugin.prepare.collect.urls import SUFFIXES as LIST_SUFFIXES
from gramgan_plugin.prepare.collect.urls import file_of, read_list
from gramgan_plugin.prepare.folders import folder_photos
from gramgan_plugin.utils.io import expanded, real_path


class SourcePhoto(NamedTuple):
    """A photo to measure.

    Attributes:
        key: its key among the measured photos; it changes with the file.
        name: its name in reports and messages.
        path: the file, or the download of a URL; None for a member of an archive.
        url: the URL if it is downloaded, otherwise empty.
        source: its origin as given in a list; otherwise the folder or archive.
        licence: as given in a list or by ``--licence``.
    """

    key: str
    name: str
    path: Path | None
    url: str
    source: str
    licence: str


class Archive(NamedTuple):
    """An archive, whose photos are unknown until it is read."""

    key: str
    path: Path
    licence: str

    def member(self, name: str) -> SourcePhoto:
        """Return the entry of one of its photos."""
        return SourcePhoto(f"{self.key}|{name}", f"{self.path}!{name}", None, "", str(self.path), self.licence)


@dataclass
class Listing:
    """All sources in the given order, and those that cannot be tried."""

    items: list[SourcePhoto | Archive] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)  # name, reason

    def urls(self) -> list[str]:
        """Return the URLs to download."""
        return [item.url for item in self.items if isinstance(item, SourcePhoto) and item.url]


def list_sources(sources: Sequence[Path], out: Path, downloads: Path, licence: str = "") -> Listing:
    """Find everything to collect; only lists are opened.

    Args:
        sources: folders (with their subfolders), archives, photos, lists of URLs.
        out: the output folder, which is not searched.
        downloads: the folder for downloads.
        licence: licence of photos for which a list names none.

    Raises:
        UserError: if a source is missing or of another type.
    """
    listing = Listing()
    known: set[str] = set()
    inside = real_path(out)
    for source in sources:
        for item in _items(expanded(source), downloads, licence, listing.failed):
            path = None if isinstance(item, SourcePhoto) and item.url else item.path
            if item.key not in known and not (path is not None and inside in real_path(path).parents):
                known.add(item.key)
                listing.items.append(item)
    return listing


def _items(source: Path, downloads: Path, licence: str, failed: list[tuple[str, str]]) -> list[SourcePhoto | Archive]:
    if source.is_dir():
        return [_file(f"{source}/{name}", path, str(source), licence) for name, path in folder_photos(source, True)]
    if str(source).startswith(("http:", "https:")):
        raise UserError(f"{source}: write URLs into a text file, one a line, and pass its name")
    if not source.exists():
        raise UserError(f"{source}: no such folder or file")
    if is_archive(source):
        return [Archive(_key("member", source), source, licence)]
    suffix = source.suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        return [_file(str(source), source, str(source.parent), licence)]
    if suffix not in LIST_SUFFIXES:
        kinds = ", ".join((*ARCHIVE_SUFFIXES, *sorted(LIST_SUFFIXES)))
        raise UserError(f"{source}: neither a folder nor a photo, archive or list of URLs ({kinds})")
    listed, problems = read_list(source)
    failed += problems
    return [
        SourcePhoto(f"url|{url}", url, file_of(downloads, url), url, origin, licence_there or licence)
        for url, origin, licence_there in listed
    ]


def _file(name: str, path: Path, source: str, licence: str) -> SourcePhoto:
    return SourcePhoto(_key("file", path), name, path, "", source, licence)


def _key(kind: str, path: Path) -> str:
    try:
        status = path.stat()
    except OSError:  # a broken link: reported when it cannot be read
        return f"{kind}|{path.absolute()}"
    return f"{kind}|{real_path(path)}|{status.st_size}|{status.st_mtime_ns}"
