"""A small data set without a download: the photos that scikit-image's wheel carries."""

import importlib.util
from pathlib import Path
from typing import Any

from gramgan_plugin.data.images import SUFFIXES, list_images
from gramgan_plugin.data.prepare.pack import Photo, Report, prepare_photos
from gramgan_plugin.errors import UserError

TRAIN = (
    "chelsea.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
HELD_OUT = ("astronaut.png", "coffee.png")
STEP = 96  # the photos are few and small; half a sub-image gets more out of them
MAX_PER_PHOTO = 30  # otherwise half of the set is one large photo of a retina


def sample_photos() -> list[Photo]:
    """Name and file of scikit-image's bundled photos, the held-out ones included.

    The files are taken as they lie beside the module; scikit-image's own functions may ask the network.

    Raises:
        UserError: if scikit-image is not installed or lacks one of them.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError("the sample data set needs scikit-image: pip install scikit-image")
    folder = Path(spec.origin).parent / "data"
    photos = [(name, folder / name) for name in sorted(TRAIN + HELD_OUT)]
    for name, path in photos:
        if not path.is_file():
            raise UserError(f"{path}: this scikit-image does not carry {name}; reinstall scikit-image")
    return photos


def prepare_sample(out: Path, *, step: int = STEP, max_per_photo: int | None = MAX_PER_PHOTO, **options: Any) -> Report:
    """Write the sample data set: six photos in sub-images, astronaut and coffee held out.

    Args:
        out: folder to write.
        step: pixels from one sub-image to the next.
        max_per_photo: the most sub-images that one photo gives.
        options: the others of :func:`gramgan_plugin.data.prepare.pack.prepare_photos`.
    """
    return prepare_photos(sample_photos(), out, step=step, max_per_photo=max_per_photo, hold_out=HELD_OUT, **options)


def folder_photos(folder: Path, recursive: bool = False) -> list[Photo]:
    """Name, relative to the folder, and file of all images in it.

    Raises:
        UserError: if there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    names = list_images(folder, recursive)
    if not names:
        hint = "" if recursive else "; for those in its subfolders pass --recursive"
        raise UserError(f"{folder}: no images in it ({', '.join(sorted(SUFFIXES))}){hint}")
    return [(name, folder / name) for name in names]
