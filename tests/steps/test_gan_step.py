from dataclasses import replace
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
from gramgan_plugin.functional import extract_patches, gram_matrix, random_theta
from gramgan_plugin.losses import DiscPerceptualLoss, GramPatchLoss, MaskedRaGANLoss
from gramgan_plugin.steps import (
    Batch,
    Pass,
    Relativistic,
    build_terms,
    combine_logs,
    discriminator_step,
    generator_step,
)
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
        call["trains"] = any(p.requires_grad for p in self.net.parameters())
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
        sr, log, _ = generator_step(net_g, net_d, terms, batch, mask, diagnose=True)
        keys = ["pix", "gram", "dp", "gan"]
        first = [f"l_g_{k}" for k in keys] + [f"grad_g_{k}" for k in keys]
        assert list(log)[: len(first)] == first
        assert all(log[f"grad_g_{k}"] > 0 for k in keys)
        assert not sr.requires_grad
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net_g.parameters())
        assert not any(value.requires_grad for value in log.values())

    def test_values_and_gradient_against_the_losses_themselves(self, nets, terms, batch):
        net_g, net_d = nets
        mask = terms[-1].loss.mask(batch.gt)
        _, log, _ = generator_step(net_g, net_d, terms, batch, mask, diagnose=True)
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
        generator_step(net_g, spy, terms, batch, mask, diagnose=True)
        assert [call["grad"] for call in spy.calls] == [False, True], "GT without a graph, then SR with one"
        assert not any(call["trains"] for call in spy.calls), "no memory for gradients of weights"
        assert torch.equal(spy.calls[0]["x"], batch.gt * mask)
        assert 0 < mask.mean() < 1
        assert all(call["taps"] == TAPS for call in spy.calls)

    def test_d_gets_no_gradient_and_stays_trainable(self, nets, terms, batch):
        net_g, net_d = nets
        generator_step(net_g, net_d, terms, batch)
        assert all(p.grad is None and p.requires_grad for p in net_d.parameters())
        net_d.conv0_0.weight.requires_grad_(False)
        generator_step(net_g, net_d, terms, batch)
        assert [name for name, p in net_d.named_parameters() if not p.requires_grad] == ["conv0_0.weight"]

    def test_measuring_gradients_changes_nothing(self, nets, terms, batch):
        net_g, net_d = nets
        gradients = []
        for measured in (False, True):
            net_g.zero_grad()
            generator_step(net_g, net_d, terms, batch, diagnose=measured)
            gradients.append([p.grad.clone() for p in net_g.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))

    def test_what_is_reported(self, nets, terms, batch):
        net_g, net_d = nets
        mask = terms[-1].loss.mask(batch.gt)
        sr, log, _ = generator_step(net_g, net_d, terms, batch, mask, diagnose=True)
        theta = random_theta(2, 1, 0.003, seed=(3, 7))
        chosen = GramPatchLoss(center=True).select(sr, batch.gt, theta)
        for kind, share in chosen.kind_fractions().items():
            assert log[f"gram_{kind}"].item() == pytest.approx(share)
        assert "gram_database" not in log
        x, y = (gram_matrix(extract_patches(image.double(), 4), center=True) for image in (sr, batch.gt))
        target = gram_matrix(chosen.candidates.take(chosen.index).double(), center=True)
        assert log["gram_distance"].item() == pytest.approx((x - target).norm(dim=(2, 3)).mean().item(), rel=1e-5)
        assert log["gram_one_to_one"].item() == pytest.approx((x - y).norm(dim=(2, 3)).mean().item(), rel=1e-5)
        assert log["mask_share"].item() == pytest.approx(mask.double().mean().item())
        spread = [sr[n].double().numpy().std(ddof=1) / batch.gt[n].double().numpy().std(ddof=1) for n in range(2)]
        assert log["sr_contrast"].item() == pytest.approx(np.mean(spread), rel=1e-5)
        assert "sr_contrast" not in generator_step(net_g, net_d, terms, batch, mask).log

    def test_scale(self, nets, terms, batch):
        """A gradient scaler's factor is in G's gradients and nowhere else."""
        net_g, net_d = nets
        _, log, _ = generator_step(net_g, net_d, terms, batch, diagnose=True)
        gradients = [p.grad.clone() for p in net_g.parameters()]
        net_g.zero_grad()
        _, scaled, _ = generator_step(net_g, net_d, terms, batch, diagnose=True, scale=torch.tensor(1024.0))
        for key, value in log.items():
            torch.testing.assert_close(scaled[key], value, rtol=1e-4, atol=1e-9)
        for p, gradient in zip(net_g.parameters(), gradients, strict=True):
            torch.testing.assert_close(p.grad, 1024 * gradient, rtol=1e-4, atol=1e-6)

    def test_batchnorm_by_running_statistics(self, nets, batch):
        net_g, net_d = nets
        net_d(torch.rand(4, 3, 64, 64))  # move the running statistics
        before = {name: value.clone() for name, value in net_d.named_buffers()}
        loss = DiscPerceptualLoss(taps=TAPS, bn="running")
        term = build_terms({"disc_perceptual_opt": {"type": "x"}}, lambda key, block: loss)
        _, log, looks = generator_step(net_g, net_d, term, batch, keep_looks=True)
        assert looks is None, "D's own half reads BatchNorm otherwise"
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
        _, log, _ = generator_step(nets[0], None, term, batch)
        assert list(log) == ["l_g_pix"]

    def test_a_batchnorm_that_is_held_stays_so(self, nets, batch):
        net_g, net_d = nets
        net_d.bn1_0.eval()
        loss = DiscPerceptualLoss(taps=TAPS, bn="running")
        generator_step(
            net_g, net_d, build_terms({"disc_perceptual_opt": {"type": "x"}}, lambda key, block: loss), batch
        )
        assert not net_d.bn1_0.training

    def test_terms_that_do_not_reach_sr(self, nets, batch):
        class Constant(nn.Module):
            def __init__(self, trains: bool) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(()), requires_grad=trains)

            def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
                return 3 * self.weight

        losses = {"pixel_opt": L1Loss(), "a": Constant(False), "b": Constant(True)}
        blocks = {"pixel_opt": {"type": "x"}, "extra_terms": {"a": {"type": "x"}, "b": {"type": "x"}}}
        terms = build_terms(blocks, lambda key, block: losses[key.split(".")[-1]])
        log = generator_step(nets[0], None, terms, batch, diagnose=True).log
        assert [log[f"l_g_{key}"].item() for key in "ab"] == [3, 3]
        assert [log[f"grad_g_{key}"].item() for key in "ab"] == [0, 0]
        assert log["grad_g_pix"] > 0

    def test_contrast_beside_a_flat_gt(self, nets, batch):
        term = build_terms({"pixel_opt": {"type": "x"}}, lambda key, block: L1Loss())
        flat = replace(batch, gt=torch.full_like(batch.gt, 0.5))
        sr, log, _ = generator_step(nets[0], None, term, flat, diagnose=True)
        expected = np.mean([image.double().numpy().std(ddof=1) / 1e-3 for image in sr])
        assert log["sr_contrast"].item() == pytest.approx(expected, rel=1e-5)

    def test_losses_stay_in_float32_under_autocast(self, nets, terms, batch):
        net_g, net_d = nets
        seen = []
        terms[1].loss.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
        sr, log, _ = generator_step(
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
        assert list(log) == ["l_d_real", "l_d_fake", "out_d_real", "out_d_fake", "d_accuracy"]

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

    def test_accuracy(self):
        class Answers(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1)[:, :1] * torch.ones((), requires_grad=True)

        gt, sr = torch.tensor([3.0, 1.0, 0.0, 4.0]), torch.tensor([2.0, 0.0, -1.0, 1.0])
        log = discriminator_step(
            Answers(), MaskedRaGANLoss(mask=None), sr[:, None, None, None], gt[:, None, None, None]
        )
        # The mean of SR's is 0.5, which 3 of GT's 4 are above; that of GT's is 2, which 3 of SR's 4 are below.
        assert log["d_accuracy"].item() == 0.75
        assert (log["out_d_real"].item(), log["out_d_fake"].item()) == (2, 0.5)

    def test_scale(self, nets, batch):
        net_d, sr = nets[1], nets[0](batch.lq).detach()
        log = discriminator_step(net_d, MaskedRaGANLoss(), sr, batch.gt)
        gradients = [p.grad.clone() for p in net_d.parameters()]
        net_d.zero_grad()
        scaled = discriminator_step(net_d, MaskedRaGANLoss(), sr, batch.gt, scale=1024.0)
        assert {key: value.item() for key, value in scaled.items()} == pytest.approx(
            {key: value.item() for key, value in log.items()}, rel=1e-5
        )
        for p, gradient in zip(net_d.parameters(), gradients, strict=True):
            torch.testing.assert_close(p.grad, 1024 * gradient, rtol=1e-4, atol=1e-5)

    def test_autocast(self, nets, batch):
        net_d, seen = nets[1], []
        net_d.conv0_0.register_forward_hook(lambda net, args, out: seen.append(out.dtype))
        discriminator_step(
            net_d,
            MaskedRaGANLoss(),
            nets[0](batch.lq),
            batch.gt,
            autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        )
        assert seen == [torch.bfloat16] * 2


class TestSharedLooks:
    """D's two answers serve both halves of an iteration."""

    def test_same_gradients_from_two_looks_as_from_four(self, nets, terms, batch):
        net_g, net_d = nets
        mask, loss = terms[-1].loss.mask(batch.gt), terms[-1].loss
        results = []
        for keep in (False, True):
            net_g.zero_grad(set_to_none=True)
            net_d.zero_grad(set_to_none=True)
            spy = Spy(net_d)
            sr, log, looks = generator_step(net_g, spy, terms, batch, mask, keep_looks=keep, diagnose=True)
            assert all(p.grad is None for p in net_d.parameters()), "G's half leaves nothing in D"
            log |= discriminator_step(spy, loss, sr, batch.gt, mask, looks=looks)
            assert len(spy.calls) == (2 if keep else 4)
            results.append((log, [p.grad.clone() for net in nets for p in net.parameters()]))
        (log, gradients), (shared_log, shared_gradients) = results
        assert log.keys() == shared_log.keys()
        for key, value in log.items():
            torch.testing.assert_close(shared_log[key], value, rtol=1e-5, atol=1e-9)
        assert len(gradients) == len(shared_gradients) > 20
        for one, other in zip(gradients, shared_gradients, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-7)

    def test_full_gradient_through_the_means(self, nets, terms, batch):
        """With detach_mean off, D's loss reaches GT's graph through the mean, too."""
        net_g, net_d = nets
        loss = MaskedRaGANLoss(detach_mean=False)
        gradients = []
        for keep in (False, True):
            net_d.zero_grad(set_to_none=True)
            sr, _, looks = generator_step(net_g, net_d, terms, batch, keep_looks=keep)
            discriminator_step(net_d, loss, sr, batch.gt, looks=looks)
            gradients.append([p.grad.clone() for p in net_d.parameters()])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-7)

    def test_without_a_discriminator(self, nets, batch):
        term = build_terms({"pixel_opt": {"type": "x"}}, lambda key, block: L1Loss())
        assert generator_step(nets[0], None, term, batch, keep_looks=True).looks is None


class TestParts:
    def test_cardinality(self, batch):
        parts = replace(batch, first_index=1, stride=3).parts(2)
        assert [(len(p.lq), len(p.gt), p.first_index, p.iteration) for p in parts] == [(1, 1, 1, 7), (1, 1, 4, 7)]
        assert torch.equal(torch.cat([p.gt for p in parts]), batch.gt)
        assert batch.parts(1)[0].gt.shape == batch.gt.shape

    @pytest.mark.parametrize("number", [3, 4])
    def test_exception(self, batch, number):
        with pytest.raises(ValueError, match=f"a batch of 2 cannot be split into {number} equal parts"):
            batch.parts(number)

    def test_parts_give_the_whole_batchs_gradient_and_log(self, nets, batch):
        net_g, _ = nets
        losses = {"pixel_opt": L1Loss(), "gram_patch_opt": GramPatchLoss(center=True)}
        terms = build_terms({key: {"type": "x"} for key in losses}, lambda key, block: losses[key.split(".")[1]])
        _, whole, _ = generator_step(net_g, None, terms, batch, diagnose=True)
        expected = [p.grad.clone() for p in net_g.parameters()]
        net_g.zero_grad()
        logs = [generator_step(net_g, None, terms, p, diagnose=True, scale=0.5).log for p in batch.parts(2)]
        for key, value in combine_logs(logs).items():
            torch.testing.assert_close(value, whole[key], rtol=1e-4, atol=1e-8)
        for p, gradient in zip(net_g.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-7)


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

    def test_warps_and_draws_depend_on_seed_iteration_and_sample(self, batch):
        seen = []

        class Record(GramPatchLoss):
            def forward(self, sr: Tensor, gt: Tensor, theta: Tensor, **options: Any) -> Tensor:
                seen.append(torch.cat([theta.flatten(1), options["draw"]], dim=1))
                return super().forward(sr, gt, theta, **options)

        term = GramPatchTerm("l_g_gram", Record(top_k=2))
        other = {"first_index": 1, "stride": 5}
        for changes in ({}, {}, {"iteration": 8}, {"manual_seed": 4}, {"first_index": 1}, other, {"first_index": 6}):
            values = {"lq": batch.lq, "gt": batch.gt, "iteration": 7, "manual_seed": 3, "first_index": 0} | changes
            term(Pass(Batch(**values), batch.gt))
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])
        assert not torch.equal(seen[0], seen[3])
        assert torch.equal(seen[0][1], seen[4][0]), "sample 1 is the same sample wherever its batch begins"
        assert torch.equal(seen[5][1], seen[6][0]), "and sample 6 is, where processes take turns"

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
