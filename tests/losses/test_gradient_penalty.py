"""Penalties against D whose gradient is known, and against finite differences."""

import pytest
import torch
from torch import Tensor, nn

from gramgan_plugin.losses import GradientPenalty
from gramgan_plugin.losses.gradient_penalty import KINDS


class Quadratic(nn.Module):
    """a / 2 |x|^2 of each sample, whose gradient is a x."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor / 2 * x.flatten(1).square().sum(dim=1, keepdim=True)


def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(4, 3, 5, 6), torch.rand(4, 3, 5, 6)


def norms(x: Tensor) -> Tensor:
    return x.double().flatten(1).norm(dim=1)


SHARE = torch.tensor([0.0, 0.3, 0.6, 1.0])


@pytest.mark.parametrize("kind", KINDS)
def test_values(kind):
    gt, sr = images()
    between = SHARE.view(-1, 1, 1, 1) * gt + (1 - SHARE.view(-1, 1, 1, 1)) * sr
    expected = {
        "wgan_gp": (2 * norms(between) - 1).square().mean(),
        "r1": (2 * norms(gt)).square().mean() / 2,
        "r2": (2 * norms(sr)).square().mean() / 2,
    }
    expected["r1r2"] = expected["r1"] + expected["r2"]
    value = GradientPenalty(3.0, kind, every=4)(Quadratic(2.0), gt, sr, SHARE)
    assert value.item() == pytest.approx(3 * 4 * expected[kind].item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_d_alone(kind):
    gt, sr = (image.requires_grad_() for image in images())
    net = Quadratic(2.0)
    GradientPenalty(1.0, kind)(net, gt, sr, SHARE).backward()
    assert gt.grad is None
    assert sr.grad is None
    # The penalties are polynomials of the factor: central differences.
    at = [GradientPenalty(1.0, kind)(Quadratic(2.0 + step), gt, sr, SHARE).item() for step in (-0.01, 0.01)]
    assert net.factor.grad.item() == pytest.approx((at[1] - at[0]) / 0.02, rel=1e-3)


def test_of_a_network():
    """Convolutions, under autocast, where gradients of the weights are wanted though the caller wants none of D."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(4, 1, 3), nn.Flatten())
    gt, sr = images()
    plain = GradientPenalty(1.0, "r1")(net, gt, sr, SHARE)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        low = GradientPenalty(1.0, "r1")(net, gt, sr, SHARE)
    assert low.dtype == torch.float32
    assert low.item() == plain.item()
    plain.backward()
    assert net[0].weight.grad.abs().sum() > 0


def test_flat_critic():
    """A gradient of 0 has a finite penalty and gradient."""
    net = Quadratic(0.0)
    value = GradientPenalty(10.0, "wgan_gp")(net, *images(), SHARE)
    value.backward()
    assert value.item() == pytest.approx(10)
    assert net.factor.grad.isfinite()


def test_refused():
    with pytest.raises(ValueError, match="kind: expected one of wgan_gp"):
        GradientPenalty(kind="r3")
    with pytest.raises(ValueError, match="loss_weight: must not be negative"):
        GradientPenalty(-1.0)
    with pytest.raises(ValueError, match="every: must be at least 1"):
        GradientPenalty(every=0)
