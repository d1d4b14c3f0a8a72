from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from gramgan_plugin.data.prepare.folders import folder_photos
from gramgan_plugin.data.prepare.pack import Report, prepare_photos

CROP, STEP, SCALE = 96, 64, 4


def write_photo(path: Path, image: np.ndarray) -> None:
    """An RGB array as a file of the suffix's format; the name may be any."""
    ok, data = cv2.imencode(path.suffix, image[..., ::-1])
    assert ok
    path.write_bytes(data.tobytes())


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos whose sides are no multiples of 4."""
    folder = tmp_path_factory.mktemp("photos")
    write_photo(folder / "chelsea.png", skimage.data.chelsea()[:203, :330])
    write_photo(folder / "émile.png", skimage.data.astronaut()[:165, 100:341])
    write_photo(folder / "coffee.png", skimage.data.coffee()[50:221, 200:397])
    return folder


@pytest.fixture(scope="session")
def prepared(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Sub-images of two of them; the third, coffee, is held out."""
    out = tmp_path_factory.mktemp("prepared") / "set"
    return prepare_photos(
        folder_photos(photo_folder), out, crop_size=CROP, step=STEP, hold_out=["coffee"], progress=False
    )
