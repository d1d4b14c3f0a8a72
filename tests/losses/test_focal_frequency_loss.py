"""The focal frequency loss against NumPy's transform, and a transform written out."""

import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.losses import FocalFrequencyLoss


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    gt = torch.from_numpy(skimage.data.chelsea()[100:112, 100:116].copy()).permute(2, 0, 1)[None].double() / 255
    return gt + 0.05 * torch.randn(gt.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), gt


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_value(alpha):
    sr, gt = pair()
    difference = (sr - gt)[0].numpy()
    height, width = difference.shape[1:]
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width)) / width)
    spectrum = np.stack([rows @ channel @ columns for channel in difference]) / np.sqrt(height * width)
    weight = np.abs(spectrum) ** alpha
    weight /= weight.max(axis=(1, 2), keepdims=True)
    expected = (weight * np.abs(spectrum) ** 2).mean()
    assert FocalFrequencyLoss(3.0, alpha)(sr, gt).item() == pytest.approx(3 * expected)


def test_equal_weights_are_the_mean_squared_error():
    """Parseval."""
    sr, gt = pair()
    assert FocalFrequencyLoss(alpha=0.0)(sr, gt).item() == pytest.approx((sr - gt).square().mean().item())


def test_gradient():
    sr, gt = pair()
    sr = sr[..., :6, :6].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: FocalFrequencyLoss(alpha=0.0)(x, gt[..., :6, :6]), (sr,))
    loss = FocalFrequencyLoss()(gt.requires_grad_(), gt.detach())
    loss.backward()
    assert loss.item() == 0
    assert gt.grad.isfinite().all()


def test_refused():
    with pytest.raises(ValueError, match="alpha: must not be negative"):
        FocalFrequencyLoss(alpha=-1)
