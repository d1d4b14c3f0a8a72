"""Values against the textbook formulas in float64, and which way the gradients point."""

import math

import pytest
import torch
from basicsr.losses.gan_loss import GANLoss

from gramgan_plugin.functional.adversarial import GAN_TYPES
from gramgan_plugin.losses import StandardGANLoss


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


REAL, FAKE = [1.5, -0.3, 0.2], [-2.0, 0.4, 1.0]
PAIRS = list(zip(REAL, FAKE, strict=True))
GENERATOR = {
    "vanilla": [-math.log(sigmoid(f)) for f in FAKE],
    "lsgan": [(f - 1) ** 2 for f in FAKE],
    "hinge": [-f for f in FAKE],
    "wgan": [-f for f in FAKE],
    "wgan_softplus": [math.log(1 + math.exp(sum(REAL) / 3 - f)) for f in FAKE],
    "paired": [-math.log(sigmoid(f - r)) for r, f in PAIRS],
}
DISCRIMINATOR = {
    "vanilla": [-math.log(sigmoid(r)) - math.log(1 - sigmoid(f)) for r, f in PAIRS],
    "lsgan": [(r - 1) ** 2 + f**2 for r, f in PAIRS],
    "hinge": [max(0, 1 - r) + max(0, 1 + f) for r, f in PAIRS],
    "wgan": [f - r for r, f in PAIRS],
    "wgan_softplus": [f - r for r, f in PAIRS],
    "paired": [-math.log(sigmoid(r - f)) for r, f in PAIRS],
}


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(x, dtype=torch.float64).view(3, 1).requires_grad_() for x in (REAL, FAKE))


@pytest.mark.parametrize("gan_type", GAN_TYPES)
class TestTypes:
    def test_values(self, gan_type):
        real, fake = logits()
        loss = StandardGANLoss(0.5, gan_type)
        assert loss.generator(real, fake).item() == pytest.approx(0.5 * sum(GENERATOR[gan_type]) / 3)
        total = sum(part.item() for part in loss.discriminator(real, fake))
        assert total == pytest.approx(sum(DISCRIMINATOR[gan_type]) / 3)

    def test_directions(self, gan_type):
        """G raises the logits of SR; D lowers them and raises those of GT, which G's loss leaves alone."""
        if gan_type == "lsgan":
            pytest.skip("least squares pulls to 0 and 1 from both sides")
        real, fake = logits()
        loss = StandardGANLoss(1.0, gan_type)
        loss.generator(real, fake).backward()
        assert real.grad is None
        assert (fake.grad < 0).all()
        real, fake = logits()
        sum(loss.discriminator(real, fake)).backward()
        assert (real.grad <= 0).all()
        assert real.grad.sum() < 0 < fake.grad.sum()

    def test_gradcheck(self, gan_type):
        real, fake = logits()
        loss = StandardGANLoss(1.0, gan_type)
        assert torch.autograd.gradcheck(lambda f: loss.generator(real, f), (fake,))
        assert torch.autograd.gradcheck(loss.discriminator, (real, fake))

    def test_large_logits(self, gan_type):
        real, fake = torch.full((2, 1), -200.0), torch.full((2, 1), 200.0)
        loss = StandardGANLoss(1.0, gan_type)
        assert loss.generator(real, fake).isfinite()
        assert all(part.isfinite() for part in loss.discriminator(real.half(), fake.half()))


@pytest.mark.parametrize("gan_type", ["wgan_softplus", "paired"])
def test_a_level_that_all_logits_share_does_not_count(gan_type):
    """As for Wasserstein's distance, which is of differences alone: the critic's level drifts."""
    real, fake = logits()
    loss = StandardGANLoss(1.0, gan_type)
    for level in (-90.0, 90.0):
        assert loss.generator(real + level, fake + level).item() == pytest.approx(loss.generator(real, fake).item())


@pytest.mark.parametrize(("gan_type", "theirs"), [("vanilla", "vanilla"), ("lsgan", "lsgan"), ("hinge", "hinge")])
def test_as_basicsr(gan_type, theirs):
    real, fake = (x.detach() for x in logits())
    loss, reference = StandardGANLoss(1e-3, gan_type), GANLoss(theirs, loss_weight=1e-3)
    assert loss.generator(real, fake).item() == pytest.approx(reference(fake, True, is_disc=False).item())
    of_real, of_fake = loss.discriminator(real, fake)
    assert of_real.item() == pytest.approx(reference(real, True, is_disc=True).item())
    assert of_fake.item() == pytest.approx(reference(fake, False, is_disc=True).item())


def test_mask():
    gt = torch.cat([torch.full((1, 3, 4, 4), 0.9), torch.eye(4).expand(1, 3, 4, 4)], dim=3)
    assert StandardGANLoss().mask(gt) is None
    assert StandardGANLoss(mask="gramgan").mask(gt)[0, 0, 0].tolist() == [0] * 4 + [1] * 4


def test_refused():
    with pytest.raises(ValueError, match="gan_type: expected one of vanilla"):
        StandardGANLoss(gan_type="relativistic")
    with pytest.raises(NotImplementedError, match="StandardGANLoss is two losses"):
        StandardGANLoss()(1, 2)
