"""Make a small data set without a download, from the photos in scikit-image's wheel."""

import importlib.util
from pathlib import Path

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.encode import Encoding
from gramgan_plugin.prepare.folders import Photo
from gramgan_plugin.prepare.pack import Report, prepare_photos
from gramgan_plugin.prepare.plan import Settings
from gramgan_plugin.prepare.presets import PRESETS

TRAIN = (
    "chelsea.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
HELD_OUT = ("astronaut.png", "coffee.png")
# The photos are few and small, so a step of half a sub-image is used. Without the limit for each photo, half of the set
# would come from one large photo of a retina. Encoding and colours are those of the results in the docs.
SETTINGS = Settings(
    scale=4,
    grid=PRESETS["paper"]._replace(step=96),
    most=30,
    encoding=Encoding("png", level=3, all_filters=True),
    as_stored=True,
)


def sample_photos() -> list[Photo]:
    """Return name and file of scikit-image's bundled photos, the held-out ones included.

    The files beside the module are read directly, since scikit-image's functions may use the network.

    Raises:
        UserError: if scikit-image is not installed or lacks one of the photos.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError("the sample data set needs scikit-image: pip install scikit-image")
    folder = Path(spec.origin).parent / "data"
    photos = [(name, folder / name) for name in sorted(TRAIN + HELD_OUT)]
    for name, path in photos:
        if not path.is_file():
            raise UserError(f"{path}: this scikit-image does not contain {name}; reinstall scikit-image")
    return photos


def prepare_sample(out: Path) -> Report:
    """Write the sample data set: six photos as sub-images; astronaut and coffee are held out."""
    return prepare_photos(sample_photos(), out, SETTINGS, hold_out=HELD_OUT, form="sample")
