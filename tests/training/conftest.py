from pathlib import Path

import cv2
import pytest
import skimage.data


@pytest.fixture
def photos(tmp_path) -> Path:
    """Five photos of different sizes."""
    folder = tmp_path / "GT"
    folder.mkdir()
    for number in range(5):
        side = 32 + 8 * number
        cut = skimage.data.chelsea()[100 : 100 + side, 20 * number : 20 * number + side + 4]
        cv2.imwrite(str(folder / f"photo{number}.png"), cut)
    return folder
