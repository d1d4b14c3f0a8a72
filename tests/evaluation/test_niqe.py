import os
import warnings
from pathlib import Path

import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.metrics import calculate_niqe
from torch import Tensor

from gramgan_plugin.evaluation.niqe import _pristine, _shapes, niqe
from gramgan_plugin.evaluation.simple_metrics import niqe as niqe_of_array
from gramgan_plugin.evaluation.simple_metrics import psnr_y

DATA = Path(os.environ.get("GRAMGAN_TEST_DATA", "../shared/data"))


def blurred(photo: np.ndarray) -> np.ndarray:
    """A photo reduced and enlarged by 4."""
    height, width = photo.shape[0] // 4, photo.shape[1] // 4
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(small, (width * 4, height * 4), interpolation=cv2.INTER_CUBIC)


def batch(*photos: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2)


def by_basicsr(photo: np.ndarray, crop: int = 0) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return calculate_niqe(photo[..., ::-1], crop_border=crop)


PHOTOS = {
    "chelsea": skimage.data.chelsea(),
    "blurred": blurred(skimage.data.chelsea()),
    "odd": skimage.data.coffee()[:257, :389],
    "astronaut": skimage.data.astronaut()[:300],
    # One step of alpha in one block makes 8e-4 and 1e-3 here: it depends on the last bits.
    "near_tie": skimage.data.astronaut()[65:361, 91:483],
    "another_near_tie": skimage.data.astronaut()[208:504, 117:509],
    "least": skimage.data.coffee()[100:300, 200:400],
}


@pytest.mark.parametrize("name", PHOTOS)
def test_against_basicsr(name):
    value = niqe(batch(PHOTOS[name]), 4)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(by_basicsr(PHOTOS[name], 4), abs=1e-6)


@pytest.mark.skipif(not (DATA / "BSD100").is_dir(), reason="GRAMGAN_TEST_DATA names no folder with BSD100")
def test_bsd100():
    """Of all images, since few of them have a block between two steps of alpha."""
    files = sorted((DATA / "BSD100" / "HR").iterdir())
    assert len(files) == 100
    for file in files[::3]:
        photo = blurred(cv2.imread(str(file))[..., ::-1])
        assert niqe(batch(photo), 4).item() == pytest.approx(by_basicsr(photo, 4), abs=1e-5), file.name


def test_blocks_that_are_flat():
    """They have no scale, and count in the mean of what they have, but not in the covariance."""
    photo = skimage.data.astronaut()[:300, :400].copy()
    photo[:110, :220] = 77
    assert niqe(batch(photo)).item() == pytest.approx(by_basicsr(photo), abs=1e-4)


def test_batch():
    photos = [skimage.data.coffee()[:200, start : start + 290] for start in (0, 100, 300)]
    single = [niqe(batch(photo)).item() for photo in photos]
    assert niqe(batch(*photos)).tolist() == pytest.approx(single, abs=1e-4)
    assert len(set(single)) == 3


def test_flat_image_is_nan():
    assert niqe(torch.full((1, 3, 200, 200), 9, dtype=torch.uint8)).isnan().all()
    assert niqe_of_array(np.full((200, 200, 3), 9, np.uint8)) is None


@pytest.mark.parametrize(
    ("image", "crop", "message"),
    [
        (torch.zeros(1, 3, 191, 400, dtype=torch.uint8), 0, "at least 192"),
        (torch.zeros(1, 3, 199, 199, dtype=torch.uint8), 4, "199x199 pixels without 4"),
        (torch.zeros(1, 3, 200, 200), 0, "uint8"),
    ],
)
def test_wrong_input(image, crop, message):
    with pytest.raises(ValueError, match=message):
        niqe(image, crop)


def test_pristine_numbers_and_table():
    mean, covariance = _pristine()
    assert mean.shape == (36,)
    assert torch.equal(covariance, covariance.T)
    assert torch.linalg.eigvalsh(covariance).min() > 0
    alphas, middles, scales, means = _shapes()
    # A normal distribution: (E|x|)^2 / E x^2 = 2 / pi, scale sqrt(2) of a standard deviation of 1.
    normal = (alphas - 2).abs().argmin()
    assert middles[normal - 1] < 2 / np.pi < middles[normal]
    assert scales[normal].item() == pytest.approx(np.sqrt(2))
    assert means[normal].item() == pytest.approx(1 / np.sqrt(np.pi))


def test_of_arrays():
    photo = np.ascontiguousarray(PHOTOS["chelsea"][..., ::-1])
    assert niqe_of_array(photo) == pytest.approx(by_basicsr(PHOTOS["chelsea"]), abs=1e-4)
    assert niqe_of_array(photo[:191]) is None
    assert psnr_y(photo[:5, :5], photo[:5, :5], crop=4) == float("inf")


@pytest.mark.gpu
def test_on_a_gpu():
    for name, photo in PHOTOS.items():
        images = batch(photo)
        assert niqe(images.cuda(), 4).item() == pytest.approx(niqe(images, 4).item(), abs=1e-5), name
