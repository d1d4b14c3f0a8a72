from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data


@pytest.fixture(scope="session")
def cuts() -> dict[str, np.ndarray]:
    """Cuts of real photos, RGB; the last is tiny."""
    rocket, coffee = skimage.data.rocket(), skimage.data.coffee()
    return {
        "astronaut": skimage.data.astronaut()[100:220, 130:290],
        "cat": skimage.data.chelsea()[60:190, 120:260],
        "cup": coffee[120:240, 200:340],
        "spoon": coffee[250:340, 60:200],
        "rocket": rocket[200:300, 250:400],
        "tiny": coffee[150:166, 300:317],
    }


@pytest.fixture(scope="session")
def photos(cuts: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of these, as PNG."""
    folder = tmp_path_factory.mktemp("photos")
    for name, image in cuts.items():
        cv2.imwrite(str(folder / f"{name}.png"), np.ascontiguousarray(image[..., ::-1]))
    return folder
