import pytest
import torch

from gramgan_plugin.functional import gromov_wasserstein, jensen_shannon
from gramgan_plugin.losses import GromovWassersteinLoss, JensenShannonLoss


def images(n: int = 4, side: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_weights(weight):
    sr, gt, lq = images(), images(seed=1), images(side=2, seed=2)
    torch.testing.assert_close(JensenShannonLoss(weight)(sr, gt), weight * jensen_shannon(sr, gt))
    torch.testing.assert_close(GromovWassersteinLoss(weight)(sr, gt, lq), weight * gromov_wasserstein(lq, sr))


def test_forms():
    assert (JensenShannonLoss.form, GromovWassersteinLoss.form) == ("image", "image_lq")


def test_gradients_flow_into_sr_only():
    sr, gt, lq = (x.requires_grad_() for x in (images(), images(seed=1), images(side=2, seed=2)))
    (JensenShannonLoss()(sr, gt) + GromovWassersteinLoss()(sr, gt, lq)).backward()
    assert (sr.grad.flatten(1).abs().sum(dim=1) > 0).all()
    assert gt.grad is None
    assert lq.grad is None


def test_small_batch():
    with pytest.raises(ValueError, match="at least 4 images, got 2"):
        GromovWassersteinLoss()(images(2), images(2), images(2, 2))
