import basicsr  # noqa: F401
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gramgan_plugin.evaluation.fidelity import luma, mse, psnr, ssim


def pair(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two photos of one size, (2, 3, H, W), and the same with noise."""
    photos = np.stack(
        [photo[40 : 40 + height, 60 : 60 + width] for photo in (skimage.data.chelsea(), skimage.data.coffee())]
    )
    noise = np.random.default_rng(seed).normal(0, 9, photos.shape)
    noisy = (photos + noise).round().clip(0, 255).astype(np.uint8)
    return tuple(torch.from_numpy(images).permute(0, 3, 1, 2) for images in (noisy, photos))


def by_basicsr(compute, sr: Tensor, gt: Tensor, crop: int, y: bool) -> list[float]:
    """BasicSR's values, image by image."""
    arrays = [images.permute(0, 2, 3, 1).numpy()[..., ::-1] for images in (sr, gt)]
    return [compute(one, other, crop_border=crop, test_y_channel=y) for one, other in zip(*arrays, strict=True)]


@pytest.mark.parametrize("y", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), [(psnr, calculate_psnr), (ssim, calculate_ssim)])
class TestAgainstBasicSR:
    @pytest.mark.parametrize(("height", "width", "crop"), [(201, 333, 4), (64, 51, 0), (31, 27, 10)])
    def test_photos(self, ours, theirs, y, height, width, crop):
        if ours is ssim and crop == 10:
            crop = 8  # leaves 11 pixels
        sr, gt = pair(height, width)
        value = ours(sr, gt, crop, y)
        assert value.dtype == torch.float64
        assert value.tolist() == pytest.approx(by_basicsr(theirs, sr, gt, crop, y), abs=5e-5)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(11, 40), st.integers(11, 40), st.integers(0, 6), st.integers(0, 9))
    def test_any_size(self, ours, theirs, y, height, width, crop, seed):
        sr, gt = pair(height + 2 * crop, width + 2 * crop, seed)
        assert ours(sr, gt, crop, y).tolist() == pytest.approx(by_basicsr(theirs, sr, gt, crop, y), abs=5e-5)


def test_mse_is_of_levels():
    sr, gt = pair(33, 20)
    expected = np.square(sr.numpy()[:, :, 2:-2, 2:-2].astype(float) - gt.numpy()[:, :, 2:-2, 2:-2]).mean((1, 2, 3))
    assert mse(sr, gt, 2).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    assert mse(sr, gt, y=True).tolist() == pytest.approx((255**2 / 10 ** (psnr(sr, gt) / 10)).tolist(), rel=1e-9)


def test_luma_of_black_and_white():
    images = torch.stack((torch.zeros(3, 1, 2, dtype=torch.uint8), torch.full((3, 1, 2), 255, dtype=torch.uint8)))
    assert luma(images).flatten().tolist() == pytest.approx([16, 16, 235, 235], abs=1e-4)


def test_equal_images():
    _, gt = pair(20, 20)
    assert psnr(gt, gt).tolist() == [float("inf")] * 2
    assert ssim(gt, gt).tolist() == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("sr", "gt", "crop", "message"),
    [
        (torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 20, 20), 0, "uint8"),
        (torch.zeros(3, 20, 20, dtype=torch.uint8), torch.zeros(3, 20, 20, dtype=torch.uint8), 0, r"\(N, 3, H, W\)"),
        (
            torch.zeros(1, 1, 20, 20, dtype=torch.uint8),
            torch.zeros(1, 1, 20, 20, dtype=torch.uint8),
            0,
            r"\(N, 3, H, W\)",
        ),
        (torch.zeros(1, 3, 20, 20, dtype=torch.uint8), torch.zeros(1, 3, 20, 21, dtype=torch.uint8), 0, "one shape"),
        (
            torch.zeros(1, 3, 20, 20, dtype=torch.uint8),
            torch.zeros(1, 3, 20, 20, dtype=torch.uint8),
            -1,
            "at least 0 pixels",
        ),
        (
            torch.zeros(1, 3, 20, 20, dtype=torch.uint8),
            torch.zeros(1, 3, 20, 20, dtype=torch.uint8),
            10,
            "20x20 pixels without 10",
        ),
    ],
)
@pytest.mark.parametrize("metric", [psnr, ssim, mse])
def test_wrong_input(metric, sr, gt, crop, message):
    with pytest.raises(ValueError, match=message):
        metric(sr, gt, crop)


def test_ssim_needs_a_window():
    sr, gt = pair(20, 18)
    assert ssim(sr, gt, 3).isfinite().all()
    with pytest.raises(ValueError, match="at least 11"):
        ssim(sr, gt, 4)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", [psnr, ssim, mse])
def test_on_a_gpu(metric):
    sr, gt = (images.repeat(1, 1, 3, 2) for images in pair(250, 380))  # cuDNN would convolve them in TF32
    assert metric(sr.cuda(), gt.cuda(), 4).cpu().tolist() == pytest.approx(metric(sr, gt, 4).tolist(), abs=5e-5)
