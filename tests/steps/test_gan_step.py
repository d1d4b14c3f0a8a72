from typing import Any

import basicsr  # noqa: F401
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.losses.basic_loss import L1Loss
from basicsr.losses.gan_loss import GANLoss
from basicsr.utils.matlab_functions import imresize
from torch import Tensor, nn

from gramgan_plugin.archs import GramGANDiscriminator
from gramgan_plugin.functional import random_theta
from gramgan_plugin.losses import DiscPerceptualLoss, GramPatchLoss, MaskedRaGANLoss
from gramgan_plugin.steps import Batch, Pass, Relativistic, build_terms, discriminator_step, generator_step
from gramgan_plugin.steps.terms import BackProjectionTerm, GramPatchTerm

TAPS = ("conv1_0", "conv3_0")


class Generator(nn.Module):
    """Enough of a generator: a conv on the enlarged input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, lq: Tensor) -> Tensor:
        return self.conv(nn.functional.interpolate(lq, scale_factor=4, mode="bicubic"))


class Spy(nn.Module):
    """Records how a discriminator is called."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls: list[dict[str, Any]] = []

    def forward(self, x: Tensor, taps: Any = None) -> Any:
        call = {"x": x.detach().clone(), "taps": taps, "grad": torch.is_grad_enabled(), "reaches": x.requires_grad}
        self.calls.append(call)
        return self.net(x) if taps is None else self.net(x, taps=taps)


@pytest.fixture
def batch() -> Batch:
    photo = torch.from_numpy(skimage.data.chelsea()[100:164, 100:228].copy()).permute(2, 0, 1).float() / 255
    gt = torch.stack([photo[..., :64], photo[..., 64:]])
    gt[1, :, :16] = 0.5  # something flat, for the mask
    return Batch(nn.functional.avg_pool2d(gt, 4), gt, iteration=7, manual_seed=3)


@pytest.fixture
def nets() -> tuple[Generator, GramGANDiscriminator]:
    torch.manual_seed(0)
    return Generator(), GramGANDiscriminator(num_feat=4, input_size=64)


@pytest.fixture
def terms() -> Any:
    losses = {
        "train.pixel_opt": L1Loss(),
        "train.gram_patch_opt": GramPatchLoss(center=True),
        "train.disc_perceptual_opt": DiscPerceptualLoss(taps=TAPS),
        "train.gan_opt": MaskedRaGANLoss(),
    }
    return build_terms({key.split(".")[1]: {"type": "x"} for key in losses}, lambda key, block: losses[key])


class TestGeneratorStep:
    def test_each_term_reaches_sr_and_g(self, nets, terms, batch):
        net_g, net_d = nets
        mask = terms[-1].loss.mask(batch.gt)
        sr, log = generator_step(net_g, net_d, terms, batch, mask, gradient_norms=True)
        keys = ["pix", "gram", "dp", "gan"]
        assert list(log) == [f"l_g_{k}" for k in keys] + [f"grad_g_{k}" for k in keys]
        assert all(log[f"grad_g_{k}"] > 0 for k in keys)
        assert not sr.requires_grad
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net_g.parameters())
        assert not any(value.requires_grad for value in log.values())

    def test_values_and_gradient_against_the_losses_themselves(self, nets, terms, batch):
        net_g, net_d = nets
        mask = terms[-1].loss.mask(batch.gt)
        _, log = generator_step(net_g, net_d, terms, batch, mask, gradient_norms=True)
        got = [p.grad.clone() for p in net_g.parameters()]
        net_g.zero_grad()

        sr = net_g(batch.lq)
        real, real_features = net_d(batch.gt * mask, taps=TAPS)
        fake, fake_features = net_d(sr * mask, taps=TAPS)
        theta = random_theta(2, 1, 0.003, seed=(3, 7))
        expected = {
            "pix": (sr - batch.gt).abs().mean(),
            "gram": GramPatchLoss(center=True)(sr, batch.gt, theta=theta),
            "dp": sum((fake_features[t] - real_features[t].detach()).square().mean() for t in TAPS),
            "gan": 0.005
            * (
                -torch.log(1 - torch.sigmoid(real.detach() - fake.mean())).mean()
                - torch.log(torch.sigmoid(fake - real.detach().mean())).mean()
            )
            / 2,
        }
        for key, value in expected.items():
            assert log[f"l_g_{key}"].item() == pytest.approx(value.item(), rel=1e-5)
            (gradient,) = torch.autograd.grad(value, sr, retain_graph=True)
            assert log[f"grad_g_{key}"].item() == pytest.approx(gradient.norm().item(), rel=1e-4)
        gradients = torch.autograd.grad(sum(expected.values()), list(net_g.parameters()))
        for one, other in zip(got, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)

    def test_d_looks_once_at_sr_and_once_at_gt(self, nets, terms, batch):
        net_g, net_d = nets
        spy = Spy(net_d)
        mask = terms[-1].loss.mask(batch.gt)
        generator_step(net_g, spy, terms, batch, mask, gradient_norms=True)
        assert [call["grad"] for call in spy.calls] == [False, True], "GT without a graph, then SR with one"
        assert torch.equal(spy.calls[0]["x"], batch.gt * mask)
        assert 0 < mask.mean() < 1
        assert all(call["taps"] == TAPS for call in spy.calls)

    def test_d_gets_no_gradient_and_stays_trainable(self, nets, terms, batch):
        net_g, net_d = nets
        generator_step(net_g, net_d, terms, batch)
        assert all(p.grad is None and p.requires_grad for p in net_d.parameters())

    def test_measuring_gradients_changes_nothing(self, nets, terms, batch):
        net_g, net_d = nets
        gradients = []
        for measured in (False, True):
            net_g.zero_grad()
            generator_step(net_g, net_d, terms, batch, gradient_norms=measured)
            gradients.append([p.grad.clone() for p in net_g.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))

    def test_batchnorm_by_running_statistics(self, nets, batch):
        net_g, net_d = nets
        net_d(torch.rand(4, 3, 64, 64))  # move the running statistics
        before = {name: value.clone() for name, value in net_d.named_buffers()}
        loss = DiscPerceptualLoss(taps=TAPS, bn="running")
        term = build_terms({"disc_perceptual_opt": {"type": "x"}}, lambda key, block: loss)
        _, log = generator_step(net_g, net_d, term, batch)
        assert all(torch.equal(before[name], value) for name, value in net_d.named_buffers())
        assert all(module.training for module in net_d.modules())
        net_d.eval()
        _, sr = net_d(net_g(batch.lq), taps=TAPS)
        _, gt = net_d(batch.gt, taps=TAPS)
        assert log["l_g_dp"].item() == pytest.approx(
            sum((sr[t] - gt[t]).square().mean().item() for t in TAPS), rel=1e-5
        )

    def test_without_a_discriminator(self, nets, batch):
        term = build_terms({"pixel_opt": {"type": "x"}}, lambda key, block: L1Loss())
        _, log = generator_step(nets[0], None, term, batch)
        assert list(log) == ["l_g_pix"]

    def test_losses_stay_in_float32_under_autocast(self, nets, terms, batch):
        net_g, net_d = nets
        seen = []
        terms[1].loss.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
        sr, log = generator_step(
            net_g, net_d, terms, batch, autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16)
        )
        assert sr.dtype == torch.float32
        assert seen == [torch.float32]
        assert all(value.dtype == torch.float32 for value in log.values())


class TestDiscriminatorStep:
    def test_nothing_reaches_g(self, nets, batch):
        net_g, net_d = nets
        sr = net_g(batch.lq)
        spy = Spy(net_d)
        log = discriminator_step(spy, MaskedRaGANLoss(), sr, batch.gt)
        assert all(p.grad is None for p in net_g.parameters())
        assert len(spy.calls) == 2
        assert not any(call["reaches"] for call in spy.calls), "no graph reaches back to the images"
        assert all(p.grad is not None for p in net_d.parameters())
        assert list(log) == ["l_d_real", "l_d_fake", "out_d_real", "out_d_fake"]

    def test_values_and_gradient(self, nets, batch):
        net_d, gt, sr = nets[1].double(), batch.gt.double(), nets[0](batch.lq).detach().double()
        log = discriminator_step(net_d, MaskedRaGANLoss(), sr, gt)
        got = [p.grad.clone() for p in net_d.parameters()]
        net_d.zero_grad()
        real, fake = net_d(gt), net_d(sr)
        l_real = -torch.log(torch.sigmoid(real - fake.mean().detach())).mean() / 2
        l_fake = -torch.log(1 - torch.sigmoid(fake - real.mean().detach())).mean() / 2
        (l_real + l_fake).backward()
        assert log["l_d_real"].item() == pytest.approx(l_real.item(), rel=1e-5)
        assert log["l_d_fake"].item() == pytest.approx(l_fake.item(), rel=1e-5)
        for one, p in zip(got, net_d.parameters(), strict=True):
            torch.testing.assert_close(one, p.grad, rtol=1e-9, atol=1e-12)


class TestTerms:
    def test_upstream_ganloss_is_used_relativistically(self):
        torch.manual_seed(0)
        real, fake = torch.randn(5, 1, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
        ours = Relativistic(GANLoss("vanilla", loss_weight=0.3))
        sigmoid, log = torch.sigmoid, torch.log
        g = 0.3 * (-log(1 - sigmoid(real - fake.mean())).mean() - log(sigmoid(fake - real.mean())).mean()) / 2
        d_real, d_fake = ours.discriminator(real, fake)
        assert ours.generator(real, fake).item() == pytest.approx(g.item())
        assert d_real.item() == pytest.approx(-log(sigmoid(real - fake.mean())).mean().item() / 2)
        assert d_fake.item() == pytest.approx(-log(1 - sigmoid(fake - real.mean())).mean().item() / 2)
        assert ours.mask(real) is None

    def test_back_projection(self, batch):
        value = BackProjectionTerm("l_g_bp", nn.L1Loss())(Pass(batch, batch.gt))
        down = [imresize(gt.permute(1, 2, 0).numpy().astype(np.float64), 0.25) for gt in batch.gt]
        lq = batch.lq.permute(0, 2, 3, 1).numpy()
        assert value.item() == pytest.approx(np.abs(np.stack(down) - lq).mean(), abs=1e-6)

    def test_warps_depend_on_seed_iteration_and_sample(self, batch):
        seen = []

        class Record(nn.Module):
            affine_copies, affine_magnitude = 1, 0.003

            def forward(self, sr: Tensor, gt: Tensor, theta: Tensor) -> Tensor:
                seen.append(theta)
                return sr.sum()

        term = GramPatchTerm("l_g_gram", Record())
        for changes in ({}, {}, {"iteration": 8}, {"manual_seed": 4}, {"first_index": 1}):
            values = {"lq": batch.lq, "gt": batch.gt, "iteration": 7, "manual_seed": 3, "first_index": 0} | changes
            term(Pass(Batch(**values), batch.gt))
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])
        assert not torch.equal(seen[0], seen[3])
        assert torch.equal(seen[0][1], seen[4][0]), "sample 1 is the same sample wherever its batch begins"

    def test_a_perceptual_loss_that_answers_two_values(self, batch):
        class Two(nn.Module):
            def __init__(self, *parts: Tensor | None) -> None:
                super().__init__()
                self.parts = parts

            def forward(self, sr: Tensor, gt: Tensor) -> tuple[Tensor | None, ...]:
                return self.parts

        for parts, expected in (((torch.tensor(2.0), None), 2.0), ((torch.tensor(2.0), torch.tensor(3.0)), 5.0)):
            (term,) = build_terms({"perceptual_opt": {"type": "x"}}, lambda key, block, p=parts: Two(*p))
            assert term(Pass(batch, batch.gt)).item() == expected

    def test_extra_terms_and_blocks_that_are_off(self):
        built = build_terms(
            {"pixel_opt": None, "extra_terms": {"edges": {"type": "L1Loss"}}, "total_iter": 3},
            lambda key, block: nn.L1Loss(),
        )
        assert [term.key for term in built] == ["l_g_edges"]
