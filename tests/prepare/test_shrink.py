import cv2
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.utils.matlab_functions import imresize

from gramgan_plugin.functional.matlab_bicubic import KINDS, MATLAB_UINT8, lq_levels
from gramgan_plugin.prepare.shrink import shrink, shrink_as
from tests.functional.matlab_reference import matlab_uint8


def reference(image: np.ndarray, scale: int) -> np.ndarray:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    return lq_levels(pixels, scale)[0].permute(1, 2, 0).numpy()


class TestShrink:
    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    @pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea"])
    def test_feature_equals_lq_levels(self, photo: str, scale: int) -> None:
        image = getattr(skimage.data, photo)()[..., ::-1]
        image = image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]
        assert np.array_equal(shrink(image, scale), reference(image, scale))

    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (15, 16), (17, 33), (16, 2)])
    def test_feature_extreme_values_at_any_size(self, scale: int, size: tuple[int, int]) -> None:
        """Black and white noise overshoots most; sides of a few pixels are mirrored more than once."""
        random = np.random.RandomState(sum(size))
        image = random.choice([0, 255], (size[0] * scale, size[1] * scale, 3)).astype(np.uint8)
        assert np.array_equal(shrink(image, scale), reference(image, scale))

    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    @pytest.mark.parametrize("size", [(1, 1), (1, 13), (15, 16), (17, 33), (40, 40)])
    def test_feature_of_uint8(self, scale: int, size: tuple[int, int]) -> None:
        random = np.random.RandomState(sum(size))
        noise = random.choice([0, 255], (size[0] * scale, size[1] * scale, 3)).astype(np.uint8)
        photo = skimage.data.coffee()[: size[0] * scale, : size[1] * scale, ::-1]
        for image in (noise, photo):
            assert np.array_equal(shrink(image, scale, MATLAB_UINT8), matlab_uint8(image, scale))
            plain, rounded = shrink_as(KINDS, image, scale)
            assert np.array_equal(plain, shrink(image, scale))
            assert np.array_equal(rounded, matlab_uint8(image, scale))

    @pytest.mark.parametrize("scale", [2, 4, 8])
    def test_feature_exact_halves_are_rounded_up(self, scale: int) -> None:
        """A level and the next in halves: the mean lies in the middle, where inexact sums would fall to either side."""
        image = np.full((8 * scale, 8 * scale, 3), 100, np.uint8)
        image[:, 1::2] = 101
        assert (shrink(image, scale)[:, 3:5] == 101).all()

    def test_feature_basicsr(self) -> None:
        image = skimage.data.chelsea()[:300, :448, ::-1]
        theirs = (imresize(image.astype(np.float32) / 255, 1 / 4) * 255).round().clip(0, 255)
        difference = np.abs(shrink(image, 4) - theirs)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-4

    def test_exception(self) -> None:
        with pytest.raises(ValueError, match="9x8 is not mod-cropped to 4"):
            shrink(np.zeros((8, 9, 3), np.uint8), 4)
        with pytest.raises(ValueError, match="kind: one of"):
            shrink(np.zeros((8, 8, 3), np.uint8), 4, "uint8")

    def test_cardinality(self) -> None:
        small = shrink(cv2.flip(np.zeros((8, 12, 3), np.uint8), 1), 4)
        assert (small.shape, small.dtype, small.flags.c_contiguous) == ((2, 3, 3), np.uint8, True)
