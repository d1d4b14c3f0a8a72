"""A small data set without a download: the photos that scikit-image's wheel carries."""

import importlib.util
from pathlib import Path
from typing import Any

from gramgan_plugin.data.prepare.encode import Encoding
from gramgan_plugin.data.prepare.folders import Photo
from gramgan_plugin.data.prepare.pack import Report, prepare_photos
from gramgan_plugin.data.prepare.presets import PRESETS
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
# The photos are few and small: half a sub-image as step gets more out of them. Without a limit for each, half of the
# set would be one large photo of a retina. The encoding and the colours are those that the results in the docs were
# made with, to the byte.
OPTIONS: dict[str, Any] = {
    **PRESETS["paper"]._asdict(),
    "step": 96,
    "max_per_photo": 30,
    "encoding": Encoding("png", level=3, all_filters=True),
    "as_stored": True,
    "hold_out": HELD_OUT,
    "form": "sample",
}


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


def prepare_sample(out: Path, **options: Any) -> Report:
    """Write the sample data set: six photos in sub-images, astronaut and coffee held out.

    Args:
        out: folder to write.
        options: of :func:`gramgan_plugin.data.prepare.pack.prepare_photos`, over those in ``OPTIONS``.
    """
    return prepare_photos(sample_photos(), out, **{**OPTIONS, **options})
