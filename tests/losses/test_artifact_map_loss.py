"""LDL's map and loss against loops in float64."""

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from gramgan_plugin.functional.artifacts import artifact_map
from gramgan_plugin.losses import ArtifactMapLoss


def images() -> tuple[Tensor, Tensor, Tensor]:
    photo = torch.from_numpy(skimage.data.coffee()[100:120, 200:224].copy()).permute(2, 0, 1)[None].double() / 255
    generator = torch.Generator().manual_seed(0)
    sr, average = (photo + s * torch.randn(photo.shape, generator=generator, dtype=torch.float64) for s in (0.1, 0.08))
    return sr, photo, average


def by_loops(sr: Tensor, gt: Tensor, average: Tensor, window: int) -> np.ndarray:
    residual, of_average = (np.abs(x[0].numpy() - gt[0].numpy()).sum(axis=0) for x in (sr, average))
    padded = np.pad(residual, window // 2, mode="reflect")
    found = np.zeros_like(residual)
    for y in range(residual.shape[0]):
        for x in range(residual.shape[1]):
            local = padded[y : y + window, x : x + window].var(ddof=1)
            found[y, x] = 0 if residual[y, x] < of_average[y, x] else local * residual.var(ddof=1) ** 0.2
    return found


@pytest.mark.parametrize("window", [3, 7])
def test_against_loops(window):
    sr, gt, average = images()
    expected = by_loops(sr, gt, average, window)
    found = artifact_map(sr, gt, average, window)
    assert found.shape == (1, 1, 20, 24)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-9, atol=1e-15)
    assert 0.2 < (expected == 0).mean() < 0.8
    value = ArtifactMapLoss(2.0, window)(sr, gt, average)
    assert value.item() == pytest.approx(2 * (expected * np.abs(sr - gt)[0].numpy()).mean())


def test_gradient():
    """It flows into SR alone, where the map is not 0."""
    sr, gt, average = (image.requires_grad_() for image in images())
    ArtifactMapLoss()(sr, gt, average).backward()
    assert gt.grad is None or gt.grad.isfinite().all()
    assert average.grad is None
    weight = artifact_map(sr, gt, average).expand_as(sr)
    torch.testing.assert_close(sr.grad, (weight * (sr - gt).sign()).detach() / sr.numel())


def test_equal_images_and_float16():
    sr, gt, average = images()
    assert ArtifactMapLoss()(gt, gt, average).item() == 0
    low = ArtifactMapLoss()(sr.half(), gt.half(), average.half())
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(ArtifactMapLoss()(sr, gt, average).item(), rel=0.02)


@pytest.mark.parametrize("window", [0, 1, 4])
def test_refused(window):
    with pytest.raises(ValueError, match="window: expected an odd number"):
        ArtifactMapLoss(window=window)
