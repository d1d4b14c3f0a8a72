"""The photos that a database is made of: LMDBs and folders, read as what they are."""

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
        on_error: ``stop`` or ``skip`` photos that cannot be used.
        workers: threads that read; None for one on each processor. They change nothing in what is written.
    """

    recursive: bool = False
    on_error: str = "stop"
    workers: int | None = None


class Photo(NamedTuple):
    """A photo that can be read.

    Attributes:
        name: what it is called in messages and in ``sources.jsonl``: file or LMDB key, after its source's name where
            there are several.
        read: gives (H, W, 3) BGR, or raises a ``PhotoError``.
    """

    name: str
    read: Callable[[], NDArray[np.uint8]]


class Seen(NamedTuple):
    """What a database records of a photo.

    Attributes:
        name: of ``Photo``.
        width: in pixels.
        height: in pixels.
        sha256: of the pixels, whatever the file's encoding, see ``pixels_sha256``.
        examined: number of patches looked at, by variant.
        usable: number of those that are not flat, by variant.
    """

    name: str
    width: int
    height: int
    sha256: str
    examined: tuple[int, ...]
    usable: tuple[int, ...]


def find_photos(sources: Sequence[Path], recursive: bool = False) -> list[Photo]:
    """All photos of LMDBs (folders with a ``data.mdb``) and of folders.

    An LMDB's images are taken as they are stored, since they are what is trained on; photos in folders are brought to
    sRGB.

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
    """SHA-256 of an image's size and pixels: equal for the same photo in another encoding.

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
