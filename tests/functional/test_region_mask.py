import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.functional import luma, region_mask, region_std


def photo(height: int = 32, width: int = 40) -> torch.Tensor:
    image = torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1)[None].float() / 255
    return image[:, :, 100 : 100 + height, 150 : 150 + width]


def loop_luma(image: torch.Tensor) -> np.ndarray:
    array = image.double().numpy()
    if array.shape[1] != 3:
        return array.mean(axis=1)
    return 0.2989 * array[:, 0] + 0.587 * array[:, 1] + 0.114 * array[:, 2]


def loop_std(image: torch.Tensor, window: int, stride: int) -> np.ndarray:
    """(N, H', W') in float64, window by window."""
    y = loop_luma(image)
    if stride == 1:
        before, after = window // 2, (window - 1) // 2
        y = np.pad(y, ((0, 0), (before, after), (before, after)), mode="reflect")
    n, height, width = y.shape
    return np.array(
        [
            [
                [np.std(y[i, top : top + window, left : left + window], ddof=1) for left in lefts]
                for top in range(0, height - window + 1, stride)
            ]
            for i in range(n)
            for lefts in [range(0, width - window + 1, stride)]
        ]
    )


class TestRegionStd:
    def test_smoke(self):
        assert region_std(photo(), 4, 4).shape == (1, 1, 8, 10)

    @pytest.mark.parametrize(
        ("window", "stride", "expected"),
        [(4, 4, (8, 10)), (8, 8, (4, 5)), (11, 1, (32, 40)), (4, 1, (32, 40))],
    )
    def test_cardinality(self, window, stride, expected):
        assert region_std(photo(), window, stride).shape == (1, 1, *expected)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize(("window", "stride"), [(2, 2), (4, 4), (11, 1), (3, 1), (4, 1)])
    def test_feature(self, channels, window, stride):
        image = torch.rand(2, channels, 16, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        got = region_std(image, window, stride)[:, 0].numpy()
        np.testing.assert_allclose(got, loop_std(image, window, stride), rtol=1e-9)

    @pytest.mark.parametrize(("window", "stride"), [(4, 4), (11, 1)])
    def test_photo_in_float32(self, window, stride):
        got = region_std(photo(), window, stride)[:, 0].numpy()
        np.testing.assert_allclose(got, loop_std(photo(), window, stride), rtol=1e-3, atol=1e-6)

    @pytest.mark.parametrize(("window", "stride"), [(4, 4), (11, 1)])
    @pytest.mark.parametrize("level", [0.1, 0.9, 1.0])
    def test_flat(self, window, stride, level):
        # The one-pass formula in float32 gives up to 3.5e-4 here, or the root of a negative number.
        assert region_std(torch.full((1, 3, 16, 16), level), window, stride).max() < 1e-6

    @pytest.mark.parametrize(("window", "stride"), [(4, 4), (11, 1)])
    def test_faint(self, window, stride):
        noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        image = 0.9 + 1e-4 * noise
        got = region_std(image, window, stride)[:, 0].numpy()
        np.testing.assert_allclose(got, loop_std(image, window, stride), rtol=1e-2)

    @pytest.mark.parametrize(
        ("shape", "window", "stride", "message"),
        [
            ((3, 8, 8), 4, 4, r"expected \(N, C, H, W\)"),
            ((1, 3, 8, 10), 4, 4, "cannot be cut into whole windows"),
            ((1, 3, 8, 8), 1, 1, "window must be at least 2"),
            ((1, 3, 8, 8), 4, 2, "stride must be 1 or the window"),
            ((1, 3, 5, 8), 11, 1, "too small for a window"),
        ],
    )
    def test_exception(self, shape, window, stride, message):
        with pytest.raises(ValueError, match=message):
            region_std(torch.zeros(shape), window, stride)

    @pytest.mark.parametrize("stride", [1, 4])
    def test_gradcheck(self, stride):
        image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: region_std(x, 4, stride), image.requires_grad_())


class TestRegionMask:
    @pytest.mark.parametrize(("window", "stride", "threshold"), [(4, 4, 0.02), (11, 1, 0.05)])
    def test_feature(self, window, stride, threshold):
        expected = loop_std(photo(), window, stride) >= threshold
        if stride > 1:
            expected = np.kron(expected, np.ones((1, window, window), bool))
        got = region_mask(photo(), window, stride, threshold)
        assert got.shape == (1, 1, 32, 40)
        assert 0 < expected.mean() < 1
        assert np.array_equal(got[:, 0].numpy(), expected)

    def test_threshold_is_kept(self):
        image = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]], dtype=torch.float64)
        std = float(region_std(image, 2, 2))
        assert region_mask(image, 2, 2, std).unique().tolist() == [1]
        assert region_mask(image, 2, 2, np.nextafter(std, 1)).unique().tolist() == [0]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_dtype(self, dtype):
        mask = region_mask(photo().to(dtype), 4, 4, 0.005)
        assert mask.dtype == dtype
        assert torch.equal(mask.float(), region_mask(photo().to(dtype).float(), 4, 4, 0.005))

    @pytest.mark.parametrize(("window", "stride"), [(4, 4), (11, 1)])
    def test_autocast(self, window, stride):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = region_std(photo(), window, stride), region_mask(photo(), window, stride, 0.02)
        assert torch.equal(inside[0], region_std(photo(), window, stride))
        assert torch.equal(inside[1], region_mask(photo(), window, stride, 0.02))


class TestLuma:
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_feature(self, channels):
        image = torch.rand(2, channels, 4, 5, generator=torch.Generator().manual_seed(0))
        np.testing.assert_allclose(luma(image)[:, 0].numpy(), loop_luma(image), rtol=1e-6)
