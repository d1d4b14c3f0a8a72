from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

Image = np.ndarray


def encoded(image: Image, suffix: str = ".jpg", quality: int = 95) -> bytes:
    """A BGR array as a file."""
    ok, data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [])
    assert ok
    return data.tobytes()


@pytest.fixture(scope="session")
def photos() -> dict[str, Image]:
    """Real photos, BGR."""
    named = {
        "astronaut": skimage.data.astronaut(),
        "coffee": skimage.data.coffee(),
        "chelsea": skimage.data.chelsea(),
        "rocket": skimage.data.rocket(),
    }
    return {name: np.ascontiguousarray(image[..., ::-1]) for name, image in named.items()}


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    return encoded


@pytest.fixture(scope="session")
def good_photos() -> list[Image]:
    """Forty of the photos on which the limits were chosen."""
    folder = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "BSDS500_train"
    files = sorted(folder.glob("*.jpg"))[::10]
    if not files:
        pytest.skip("the Berkeley photos are not here")
    return [cv2.imread(str(path)) for path in files]
