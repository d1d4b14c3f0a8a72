import numpy as np
import pytest
import skimage.data
import torch
from basicsr.utils.matlab_functions import imresize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from gramgan_plugin.functional.matlab_bicubic import (
    MATLAB_UINT8,
    lq_levels,
    matlab_bicubic,
    round_to_uint8,
    symmetric_index,
)
from tests.functional.matlab_reference import matlab_uint8, one_pass

SCALES = [(1, 2), (1, 3), (1, 4), (1, 8), (2, 1), (4, 1)]


def photo(name: str, height: int | None = None, width: int | None = None) -> Tensor:
    """(1, 3, H, W) uint8."""
    image = getattr(skimage.data, name)()[:height, :width]
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None]


def kernel(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def resize_matrix(length: int, up: int, down: int) -> np.ndarray:
    """Rows of weights over the pixels of one side, in float64 loops."""
    scale, padding = up / down, 6 * down
    source = np.pad(np.arange(length), padding, mode="symmetric")
    matrix = np.zeros((-(-length * up // down), length))
    squeeze = min(scale, 1.0)
    for out, row in enumerate(matrix):
        centre = (out + 0.5) / scale - 0.5
        for position in range(-padding, length + padding):
            row[source[position + padding]] += kernel((position - centre) * squeeze)
        row /= row.sum()
    return matrix


class TestMatlabBicubic:
    def test_smoke(self) -> None:
        assert matlab_bicubic(torch.rand(2, 3, 16, 24), down=4).shape == (2, 3, 4, 6)

    @pytest.mark.parametrize(
        ("image", "factors"),
        [
            (torch.zeros(3, 8, 8), {}),
            (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), {}),
            (torch.zeros(1, 3, 8, 8), {"down": 0}),
            (torch.zeros(1, 3, 8, 8), {"up": 0}),
        ],
    )
    def test_exception(self, image: Tensor, factors: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=r"image|up and down"):
            matlab_bicubic(image, **factors)

    @pytest.mark.parametrize(("up", "down"), SCALES)
    @pytest.mark.parametrize("name", ["chelsea", "coffee"])
    def test_feature_equals_basicsr(self, name: str, up: int, down: int) -> None:
        size = (240, 360) if down > 1 else (48, 72)
        levels = photo(name, *size)
        image = levels.float() / 255
        expected = imresize(image[0], up / down)
        result = matlab_bicubic(image, up, down)[0]
        assert result.shape == expected.shape
        assert (result - expected).abs().max() < 1e-5

        rounded = (expected * 255).round().clamp(0, 255)
        half = ((expected * 255) % 1 - 0.5).abs() < 1e-3  # float32 may put these on either side
        for ours in (
            round_to_uint8(result) * 255,
            *([lq_levels(levels, down)[0].float()] if up == 1 else []),
        ):
            difference = (ours.round() - rounded).abs()
            assert difference.max() <= 1
            assert not (difference > 0)[~half].any()

    @pytest.mark.parametrize(
        ("up", "down", "height", "width"),
        [
            (1, 4, 1, 3),
            (1, 8, 5, 2),
            (1, 4, 30, 41),
            (1, 3, 10, 11),
            (3, 2, 7, 9),
            (4, 1, 1, 2),
            (2, 4, 9, 8),
        ],
    )
    def test_cardinality_any_size(self, up: int, down: int, height: int, width: int) -> None:
        image = torch.rand(1, 2, height, width, dtype=torch.float64, generator=torch.manual_seed(0))
        rows, columns = resize_matrix(height, up, down), resize_matrix(width, up, down)
        expected = torch.from_numpy(rows @ image.numpy() @ columns.T)
        torch.testing.assert_close(matlab_bicubic(image, up, down), expected, atol=1e-12, rtol=0)

    def test_feature_same_size_is_the_image(self) -> None:
        image = torch.rand(1, 3, 5, 7)
        assert torch.equal(matlab_bicubic(image, 2, 2), image)

    def test_gradcheck(self) -> None:
        image = torch.rand(1, 1, 6, 5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: matlab_bicubic(x, down=2), image)
        assert torch.autograd.gradcheck(lambda x: matlab_bicubic(x, up=2), image)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_dtype(self, dtype: torch.dtype) -> None:
        image = torch.rand(1, 3, 16, 16).to(dtype)
        result = matlab_bicubic(image, down=4)
        assert result.dtype == torch.float32
        assert torch.equal(result, matlab_bicubic(image.float(), down=4))
        assert matlab_bicubic(image.double(), down=4).dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_dtype_autocast(self, dtype: torch.dtype) -> None:
        image = torch.rand(1, 3, 16, 16).to(dtype)
        plain = matlab_bicubic(image, down=4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = matlab_bicubic(image, down=4)
        assert result.dtype == plain.dtype
        assert torch.equal(result, plain)


class TestSymmetricIndex:
    @pytest.mark.parametrize("length", [1, 2, 3, 7])
    def test_feature(self, length: int) -> None:
        expected = np.pad(np.arange(length), (11, 13), mode="symmetric")
        assert symmetric_index(-11, length + 13, length).tolist() == expected.tolist()


class TestRoundToUint8:
    def test_feature(self) -> None:
        levels = torch.tensor([-3.0, 0.49, 0.5, 1.5, 2.5, 254.4, 254.6, 300.0])
        assert (round_to_uint8(levels / 255) * 255).round().tolist() == [0, 0, 1, 2, 3, 254, 255, 255]

    def test_feature_keeps_levels(self) -> None:
        levels = torch.arange(256, dtype=torch.uint8)
        image = levels.float() / 255
        assert torch.equal(round_to_uint8(image), image)

    def test_dtype(self) -> None:
        assert round_to_uint8(torch.rand(3, dtype=torch.bfloat16)).dtype == torch.float32
        assert round_to_uint8(torch.rand(3, dtype=torch.float64)).dtype == torch.float64


class TestLqLevels:
    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    def test_feature_window_is_the_whole_photos(self, scale: int) -> None:
        gt = photo("coffee", 384, 600)
        whole, margin, side = lq_levels(gt, scale), 4, 96 // scale
        random = np.random.RandomState(0)
        for _ in range(20):
            top = int(random.randint(margin, whole.shape[-2] - side - margin))
            left = int(random.randint(margin, whole.shape[-1] - side - margin))
            begin = (top - margin) * scale, (left - margin) * scale
            length = (side + 2 * margin) * scale
            crop = gt[..., begin[0] : begin[0] + length, begin[1] : begin[1] + length]
            expected = whole[..., top : top + side, left : left + side]
            inner = slice(margin, margin + side)
            assert torch.equal(lq_levels(crop, scale)[..., inner, inner], expected)
            turned = lq_levels(crop.flip(-1).transpose(-1, -2), scale).transpose(-1, -2).flip(-1)
            assert torch.equal(turned[..., inner, inner], expected)

    def test_feature_halves_go_up(self) -> None:
        gt = torch.tensor([[10, 11], [11, 10]], dtype=torch.uint8).repeat(8, 8)[None, None]
        assert lq_levels(gt, 2)[0, 0, 4, 4] == 11


class TestLqLevelsOfUint8:
    """MATLAB's imresize of uint8 rounds and clips between its passes."""

    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    @pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
    def test_feature_equals_the_reference(self, name: str, scale: int) -> None:
        gt = photo(name)[..., :-3]  # no multiples of the scale
        expected = matlab_uint8(gt[0].permute(1, 2, 0).numpy(), scale)
        made = lq_levels(gt, scale, MATLAB_UINT8)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(made, expected)
        plain = lq_levels(gt, scale)[0].permute(1, 2, 0).numpy().astype(int)
        assert 0.03 < (plain != made).mean() < 0.3

    @given(
        scale=st.sampled_from([2, 3, 4, 5, 8]),
        gt=arrays(
            np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.sampled_from([0, 1, 7, 254, 255])
        ),
    )
    def test_feature_any_size(self, scale: int, gt: np.ndarray) -> None:
        made = lq_levels(torch.from_numpy(gt)[None, None], scale, MATLAB_UINT8)
        assert made.dtype == torch.uint8
        assert np.array_equal(made[0, 0].numpy(), matlab_uint8(gt, scale))

    def test_feature_order_of_the_passes(self) -> None:
        gt = photo("chelsea", 96, 96)
        turned = lq_levels(gt.mT.contiguous(), 2, MATLAB_UINT8).mT
        assert not torch.equal(turned, lq_levels(gt, 2, MATLAB_UINT8))
        levels = gt[0].permute(1, 2, 0).numpy()
        assert np.array_equal(turned[0].permute(1, 2, 0).numpy(), one_pass(one_pass(levels, 2, 1), 2, 0))

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_feature_window_is_the_whole_photos(self, scale: int) -> None:
        gt, margin = photo("coffee", 240, 240), 4
        whole = lq_levels(gt, scale, MATLAB_UINT8)
        crop = gt[..., 5 * scale : 40 * scale, 7 * scale : 50 * scale].flip(-1)
        made = lq_levels(crop, scale, MATLAB_UINT8).flip(-1)[..., margin:-margin, margin:-margin]
        assert torch.equal(made, whole[..., 5 + margin : 40 - margin, 7 + margin : 50 - margin])

    def test_exception(self) -> None:
        with pytest.raises(ValueError, match="kind: one of matlab-bicubic, matlab-uint8, got 'uint8'"):
            lq_levels(photo("chelsea", 8, 8), 2, "uint8")
