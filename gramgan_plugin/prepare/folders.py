"""Find the photos in folders, their names in a data set, and their LQ files."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from gramgan_plugin.data.images import SUFFIXES
from gramgan_plugin.data.photos import PhotoError
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import expanded, real_path

Photo = tuple[str, Path]  # name in the data set, with '/'; file


def folder_photos(folder: Path, recursive: bool = False) -> list[Photo]:
    """Return name (relative to the folder) and file of all images in a folder, by suffix, without hidden ones.

    Links are followed, except to folders above themselves. A broken link counts as a photo, so that it is reported
    when it cannot be read.

    Raises:
        UserError: if the folder is missing or has no images.
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    names = sorted(_images(folder, "", recursive, frozenset()))
    if not names:
        hint = "" if recursive else "; for those in its subfolders pass --recursive"
        raise UserError(f"{folder}: no images in it ({', '.join(sorted(SUFFIXES))}){hint}")
    return [(name, folder / name) for name in names]


def folders_photos(folders: Sequence[Path], recursive: bool = False) -> list[Photo]:
    """Return the photos of several folders; with more than one, names start with the folder's name.

    Raises:
        UserError: see :func:`folder_photos`; or if a folder is given twice.
    """
    _check_different(folders)
    return [
        (prefix + name, path)
        for prefix, folder in zip(_prefixes(folders), folders, strict=True)
        for name, path in folder_photos(folder, recursive)
    ]


class Partners:
    """Finds the LQ photo of a GT photo: the same name, with or without ``xS`` after the stem, as in DIV2K.

    ``a/0001.png`` has ``a/0001x4.png``, ``a/0001x4.jpg``, ..., or ``a/0001.png``, ... in the LQ folder. For
    ``DIV2K_train_LR_bicubic`` its subfolder ``X4`` is taken.

    Args:
        hr: the folders of GT photos, as for :func:`folders_photos`.
        lq: as many folders, in their order.
        scale: factor between the two.
        recursive: include GT photos in subfolders.

    Raises:
        UserError: if the numbers of folders differ, or one holds no images.
    """

    def __init__(self, hr: Sequence[Path], lq: Sequence[Path], scale: int, recursive: bool = False) -> None:
        if len(hr) != len(lq):
            raise UserError(f"--lq: {len(lq)} folders for {len(hr)} of GT; give one for each, in the same order")
        _check_different(lq)
        self.scale = scale
        self.folders = [_of_scale(expanded(folder), scale) for folder in lq]
        self._files: dict[str, list[Path]] = {}
        for prefix, folder in zip(_prefixes(hr), self.folders, strict=True):
            for name, path in folder_photos(folder, recursive):
                self._files.setdefault(prefix + _stem(name), []).append(path)

    def __call__(self, name: str) -> Path:
        """Return the LQ file of a GT photo.

        Raises:
            PhotoError: if there is none, or more than one.
        """
        stem = _stem(name)
        found = self._files.get(f"{stem}x{self.scale}") or self._files.get(stem, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise PhotoError(f"has {len(found)} LQ photos ({', '.join(path.name for path in found)}); keep one")
        base = PurePosixPath(stem).name
        raise PhotoError(f"has no LQ photo: neither {base}x{self.scale}.png nor {base}.png, or the like")


def _of_scale(folder: Path, scale: int) -> Path:
    within = folder / f"X{scale}"
    return within if within.is_dir() else folder


def _stem(name: str) -> str:
    return name[: len(name) - len(PurePosixPath(name).suffix)]


def _prefixes(folders: Sequence[Path]) -> list[str]:
    """Return the prefix of the photos' names for each folder."""
    if len(folders) == 1:
        return [""]
    names = [real_path(folder).name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return [f"{name}/" for name in names]


def _check_different(folders: Sequence[Path]) -> None:
    places = [real_path(folder) for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{folders[number]}: given twice")


def _images(folder: Path, prefix: str, recursive: bool, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    status = folder.stat()
    itself = (status.st_dev, status.st_ino)
    if itself in above:  # a circular link
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_folder = False
            with suppress(OSError):  # a link to itself
                is_folder = entry.is_dir()
            if is_folder and recursive:
                yield from _images(Path(entry.path), f"{prefix}{entry.name}/", True, above | {itself})
            elif not is_folder and PurePosixPath(entry.name).suffix.lower() in SUFFIXES:
                yield prefix + entry.name
