"""The wavelet loss against loops over the pixels."""

import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.losses import WaveletLoss


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    photo = torch.from_numpy(skimage.data.chelsea()[100:124, 100:118].copy()).permute(2, 0, 1).double() / 255
    gt = torch.stack([photo[:, :12], photo[:, 12:]])
    return gt + 0.05 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), gt


def _details(image: np.ndarray, apart: int) -> tuple[np.ndarray, list[float]]:
    """The mean of four pixels at each place of one channel, and all differences between them."""
    rows, columns = (side - apart for side in image.shape)
    means, differences = np.zeros((rows, columns)), []
    for y in range(rows):
        for x in range(columns):
            a, b, c, d = image[y, x], image[y, x + apart], image[y + apart, x], image[y + apart, x + apart]
            means[y, x] = (a + b + c + d) / 4
            differences += [(a + c - b - d) / 4, (a + b - c - d) / 4, (a + d - b - c) / 4]
    return means, differences


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_value(levels):
    sr, gt = pair()
    whole: list[list[float]] = [[] for _ in range(levels)]
    for one, other in zip(sr.flatten(0, 1).numpy(), gt.flatten(0, 1).numpy(), strict=True):
        for level in range(levels):
            one, of_one = _details(one, 2**level)
            other, of_other = _details(other, 2**level)
            whole[level] += [abs(a - b) for a, b in zip(of_one, of_other, strict=True)]
    expected = np.mean([np.mean(level) for level in whole])
    assert WaveletLoss(3.0, levels)(sr, gt).item() == pytest.approx(3 * expected)
    assert WaveletLoss(3.0, levels)(sr.float(), gt.float()).item() == pytest.approx(3 * expected, rel=1e-5)


def test_what_it_does_not_see():
    _, gt = pair()
    assert WaveletLoss()(gt + 0.25, gt).item() == pytest.approx(0, abs=1e-12)


def test_gradient():
    sr, gt = pair()
    sr = sr[:1, :1, :6, :6].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: WaveletLoss()(x, gt[:1, :1, :6, :6]), (sr,))


def test_autocast():
    sr, gt = (image.float() for image in pair())
    with torch.autocast("cpu", torch.bfloat16):
        assert WaveletLoss()(sr, gt).item() == WaveletLoss()(sr, gt).float().item()
        assert WaveletLoss()(sr, gt).dtype == torch.float32
    assert WaveletLoss()(sr, gt).item() == pytest.approx(WaveletLoss()(sr.double(), gt.double()).item(), rel=1e-5)


def test_refused():
    with pytest.raises(ValueError, match="levels: must be from 1 to 10"):
        WaveletLoss(levels=0)
    with pytest.raises(ValueError, match="sides of at least 4"):
        WaveletLoss()(torch.zeros(1, 1, 3, 8), torch.zeros(1, 1, 3, 8))
    with pytest.raises(ValueError, match="one shape"):
        WaveletLoss()(torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8))
