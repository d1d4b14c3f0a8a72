"""Find and read the photos for a database, in LMDBs and folders."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.photos import decode_photo, read_photo
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.folders import folder_photos
from gramgan_plugin.utils.io import expanded, real_path


@dataclass(frozen=True)
class Reading:
    """Which photos are read, and how.

    Attributes:
        recursive: take photos in subfolders, too.
        on_error: ``stop`` at or ``skip`` photos that cannot be used.
        workers: number of reading threads; None for one on each processor. The result does not depend on it.
    """

    recursive: bool = False
    on_error: str = "stop"
    workers: int | None = None


class Photo(NamedTuple):
    """A photo to read.

    Attributes:
        name: its name in messages and in ``sources.jsonl``: file or LMDB key, after the source's name if there are
            several sources.
        read: returns (H, W, 3) BGR, or raises a ``PhotoError``.
    """

    name: str
    read: Callable[[], NDArray[np.uint8]]


class Seen(NamedTuple):
    """A database's record of a photo.

    Attributes:
        name: as in ``Photo``.
        width: in pixels.
        height: in pixels.
        sha256: hash of the pixels, see ``pixels_sha256``.
        examined: number of examined patches, by variant.
        usable: number of patches that are not flat, by variant.
    """

    name: str
    width: int
    height: int
    sha256: str
    examined: tuple[int, ...]
    usable: tuple[int, ...]


def find_photos(sources: Sequence[Path], recursive: bool = False) -> list[Photo]:
    """Return all photos of LMDBs (folders with a ``data.mdb``) and folders.

    An LMDB's images are used as stored, since training uses them so; photos in folders are converted to sRGB.

    Raises:
        UserError: if a source is missing, empty, damaged, or given twice.
    """
    places = [real_path(source) for source in sources]
    photos = []
    for number, (source, place) in enumerate(zip(sources, places, strict=True)):
        if place in places[:number]:
            raise UserError(f"--source {source}: given twice")
        prefix = "" if len(places) == 1 else f"{number + 1}-{place.name}/"
        photos += [Photo(prefix + photo.name, photo.read) for photo in _photos_of(expanded(source), recursive)]
    return photos


def pixels_sha256(image: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of an image's size and pixels, which does not depend on the file's encoding.

    Args:
        image: (H, W, 3) BGR.
    """
    digest = hashlib.sha256(b"%d %d\n" % image.shape[:2])
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _photos_of(source: Path, recursive: bool) -> list[Photo]:
    if (source / "data.mdb").exists() or source.suffix == ".lmdb":
        images = LmdbImages(source)
        return [Photo(key, lambda key=key: _stored(images, key)) for key in images.keys]  # type: ignore[misc]
    return [Photo(name, lambda path=path: read_photo(path)) for name, path in folder_photos(source, recursive)]  # type: ignore[misc]


def _stored(images: LmdbImages, key: str) -> NDArray[np.uint8]:
    return decode_photo(images.read(key), manage_colours=False)
