from dataclasses import replace
from typing import Any

import basicsr  # noqa: F401
import numpy as np
import pytest
import torch
from basicsr.losses.basic_loss import L1Loss
from basicsr.losses.gan_loss import GANLoss
from basicsr.utils.matlab_functions import imresize
from torch import Tensor, nn

from gramgan_plugin.errors import OptionError
from gramgan_plugin.functional import choose_targets, extract_patches, gram_matrix, random_theta
from gramgan_plugin.losses import DiscPerceptualLoss, GramPatchLoss, MaskedRaGANLoss
from gramgan_plugin.steps.gan_step import GANStep
from gramgan_plugin.steps.step_state import Batch, StepState
from gramgan_plugin.steps.terms import (
    BackProjectionTerm,
    Relativistic,
    TextureTerm,
    build_terms,
    term_mistakes,
)
from gramgan_plugin.steps.update import Update
from tests.steps.small_step import TAPS, Spy, grads, run


class TestGeneratorsHalf:
    def test_each_term_reaches_sr_and_g(self, nets, terms, batch):
        state = run(*nets, terms, batch, diagnose=True)
        keys = ["pix", "gram", "dp", "gan"]
        first = [f"l_g_{k}" for k in keys] + [f"grad_g_{k}" for k in keys]
        assert list(state.log)[: len(first)] == first
        assert all(state.log[f"grad_g_{k}"] > 0 for k in keys)
        assert not state.sr.requires_grad
        assert all(gradient.abs().sum() > 0 for gradient in grads(nets[0]))
        assert not any(value.requires_grad for value in state.log.values())

    def test_values_and_gradient_against_the_losses_themselves(self, nets, terms, batch):
        net_g, net_d = nets
        state = run(net_g, net_d, terms, batch, diagnose=True)
        got, mask = grads(net_g), terms[-1].loss.mask(batch.gt)
        assert 0 < mask.mean() < 1

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
            assert state.log[f"l_g_{key}"].item() == pytest.approx(value.item(), rel=1e-5)
            (gradient,) = torch.autograd.grad(value, sr, retain_graph=True)
            assert state.log[f"grad_g_{key}"].item() == pytest.approx(gradient.norm().item(), rel=1e-4)
        gradients = torch.autograd.grad(sum(expected.values()), list(net_g.parameters()))
        for one, other in zip(got, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)

    def test_measuring_gradients_changes_nothing(self, nets, terms, batch):
        gradients = []
        for measured in (False, True):
            run(*nets, terms, batch, diagnose=measured)
            gradients.append(grads(*nets))
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))

    def test_what_is_reported(self, nets, terms, batch):
        sr, log = (state := run(*nets, terms, batch, diagnose=True)).sr, state.log
        theta = random_theta(2, 1, 0.003, seed=(3, 7))
        chosen = choose_targets(sr, batch.gt, terms[1].loss.options, theta=theta)
        for kind, share in chosen.kind_fractions().items():
            assert log[f"gram_{kind}"].item() == pytest.approx(share)
        assert "gram_database" not in log
        x, y = (gram_matrix(extract_patches(image.double(), 4), center=True) for image in (sr, batch.gt))
        target = gram_matrix(chosen.candidates.take(chosen.index).double(), center=True)
        assert log["gram_distance"].item() == pytest.approx((x - target).norm(dim=(2, 3)).mean().item(), rel=1e-5)
        assert log["gram_one_to_one"].item() == pytest.approx((x - y).norm(dim=(2, 3)).mean().item(), rel=1e-5)
        assert log["mask_share"].item() == pytest.approx(terms[-1].loss.mask(batch.gt).double().mean().item())
        spread = [sr[n].double().numpy().std(ddof=1) / batch.gt[n].double().numpy().std(ddof=1) for n in range(2)]
        assert log["sr_contrast"].item() == pytest.approx(np.mean(spread), rel=1e-5)
        assert "sr_contrast" not in run(*nets, terms, batch).log

    def test_how_often_it_is_reported(self, nets, batch):
        net_g = nets[0]
        update = Update({"g": torch.optim.SGD(net_g.parameters(), lr=0.0)}, {"g": net_g})
        term = build_terms({"pixel_opt": {"type": "x"}}, lambda key, block: L1Loss())
        step = GANStep(net_g, None, term, None, update, diagnose_every=3)
        assert ["grad_g_pix" in step(batch, iteration).log for iteration in (1, 2, 3, 6)] == [False, False, True, True]

    def test_batchnorm_by_running_statistics(self, nets, batch):
        net_g, net_d = nets
        net_d(torch.rand(4, 3, 64, 64))  # move the running statistics
        before = {name: value.clone() for name, value in net_d.named_buffers()}
        losses = {"disc_perceptual_opt": DiscPerceptualLoss(taps=TAPS, bn="running"), "gan_opt": MaskedRaGANLoss()}
        terms = build_terms({key: {"type": "x"} for key in losses}, lambda key, block: losses[key.split(".")[1]])
        spy = Spy(net_d)
        expected = [1, 1]  # what D's own half adds to the counters, and nothing of the terms' passes
        mask = losses["gan_opt"].mask(batch.gt)
        with torch.no_grad():
            net_d.eval()
            _, sr = net_d(net_g(batch.lq) * mask, taps=TAPS)
            _, gt = net_d(batch.gt * mask, taps=TAPS)
            net_d.train()
        log = run(net_g, spy, terms, batch).log
        assert len(spy.calls) == 4, "D's own half reads BatchNorm otherwise"
        counted = {name: int(value - before[name]) for name, value in net_d.named_buffers() if "num_batches" in name}
        assert set(counted.values()) == {sum(expected)}
        assert all(module.training for module in net_d.modules())
        assert log["l_g_dp"].item() == pytest.approx(
            sum((sr[t] - gt[t]).square().mean().item() for t in TAPS), rel=1e-5
        )

    def test_a_batchnorm_that_is_held_stays_so(self, nets, batch):
        net_g, net_d = nets
        net_d.bn1_0.eval()
        losses = {"disc_perceptual_opt": DiscPerceptualLoss(taps=TAPS, bn="running"), "gan_opt": MaskedRaGANLoss()}
        terms = build_terms({key: {"type": "x"} for key in losses}, lambda key, block: losses[key.split(".")[1]])
        run(net_g, net_d, terms, batch)
        assert not net_d.bn1_0.training
        assert net_d.bn1_1.training

    def test_without_a_discriminator(self, nets, batch):
        term = build_terms({"pixel_opt": {"type": "x"}}, lambda key, block: L1Loss())
        assert list(run(nets[0], None, term, batch).log) == ["l_g_pix", "grad_norm_g"]

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
        log = run(nets[0], None, terms, batch, diagnose=True).log
        assert [log[f"l_g_{key}"].item() for key in "ab"] == [3, 3]
        assert [log[f"grad_g_{key}"].item() for key in "ab"] == [0, 0]
        assert log["grad_g_pix"] > 0

    def test_contrast_beside_a_flat_gt(self, nets, batch):
        term = build_terms({"pixel_opt": {"type": "x"}}, lambda key, block: L1Loss())
        state = run(nets[0], None, term, replace(batch, gt=torch.full_like(batch.gt, 0.5)), diagnose=True)
        expected = np.mean([image.double().numpy().std(ddof=1) / 1e-3 for image in state.sr])
        assert state.log["sr_contrast"].item() == pytest.approx(expected, rel=1e-5)

    def test_losses_stay_in_float32_under_autocast(self, nets, terms, batch):
        seen, in_d = [], []
        terms[1].loss.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
        nets[1].conv0_0.register_forward_hook(lambda net, args, out: in_d.append(out.dtype))
        state = run(*nets, terms, batch, autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
        assert state.sr.dtype == torch.float32
        assert seen == [torch.float32]
        assert in_d == [torch.bfloat16] * 2
        assert all(value.dtype == torch.float32 for value in state.log.values())


class TestDiscriminatorsHalf:
    def test_two_passes_serve_both_halves(self, nets, terms, batch):
        spy = Spy(nets[1])
        run(nets[0], spy, terms, batch, diagnose=True)
        assert [(call["grad"], call["trains"], call["taps"]) for call in spy.calls] == [(True, True, TAPS)] * 2
        mask = terms[-1].loss.mask(batch.gt)
        assert torch.equal(spy.calls[0]["x"], batch.gt * mask)
        assert torch.equal(spy.calls[1]["x"], nets[0](batch.lq).detach() * mask)

    def test_passes_that_are_not_shared(self, nets, terms, batch):
        """G's half then needs no memory for gradients of D's weights, and nothing of D's half reaches G."""
        spy = Spy(nets[1])
        run(nets[0], spy, terms, batch, diagnose=True, share_passes=False)
        assert [(call["grad"], call["trains"], call["reaches"]) for call in spy.calls] == [
            (False, False, False),
            (True, False, True),
            (True, True, False),
            (True, True, False),
        ]
        net_d = nets[1]
        net_d.conv0_0.weight.requires_grad_(False)
        run(*nets, terms, batch, share_passes=False)
        assert [name for name, p in net_d.named_parameters() if not p.requires_grad] == ["conv0_0.weight"]

    def test_same_gradients_from_two_passes_as_from_four(self, nets, terms, batch):
        results = []
        for shares in (False, True):
            spy = Spy(nets[1])
            log = run(nets[0], spy, terms, batch, diagnose=True, share_passes=shares).log
            assert len(spy.calls) == (2 if shares else 4)
            results.append((log, grads(*nets)))
        (log, gradients), (shared_log, shared_gradients) = results
        assert log.keys() == shared_log.keys()
        for key, value in log.items():
            torch.testing.assert_close(shared_log[key], value, rtol=1e-5, atol=1e-9)
        assert len(gradients) == len(shared_gradients) > 20
        for one, other in zip(gradients, shared_gradients, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("shares", [False, True])
    @pytest.mark.parametrize("detach_mean", [False, True])
    def test_values_and_gradient(self, nets, batch, shares, detach_mean):
        """D's gradient is that of its own loss; G's loss leaves nothing in it."""
        nets = [net.double() for net in nets]
        batch = replace(batch, lq=batch.lq.double(), gt=batch.gt.double())
        terms = build_terms({"gan_opt": {"type": "x"}}, lambda key, block: MaskedRaGANLoss(detach_mean=detach_mean))
        state = run(*nets, terms, batch, share_passes=shares)
        got, log, mask = grads(nets[1]), state.log, terms[0].loss.mask(batch.gt)
        nets[1].zero_grad()
        real, fake = nets[1](batch.gt * mask), nets[1](state.sr * mask)
        mean_fake, mean_real = (x.mean().detach() if detach_mean else x.mean() for x in (fake, real))
        l_real = -torch.log(torch.sigmoid(real - mean_fake)).mean() / 2
        l_fake = -torch.log(1 - torch.sigmoid(fake - mean_real)).mean() / 2
        (l_real + l_fake).backward()
        assert log["l_d_real"].item() == pytest.approx(l_real.item(), rel=1e-5)
        assert log["l_d_fake"].item() == pytest.approx(l_fake.item(), rel=1e-5)
        for one, p in zip(got, nets[1].parameters(), strict=True):
            torch.testing.assert_close(one, p.grad, rtol=1e-6, atol=1e-10)

    def test_accuracy(self, batch):
        class Identity(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(()))

            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1)[:, :1] * self.weight

        gt, sr = torch.tensor([3.0, 1.0, 0.0, 4.0]), torch.tensor([2.0, 0.0, -1.0, 1.0])
        images = Batch(sr[:, None, None, None], gt[:, None, None, None], iteration=1)
        terms = build_terms({"gan_opt": {"type": "x"}}, lambda key, block: MaskedRaGANLoss(mask=None))
        log = run(Identity(), Identity(), terms, images).log
        # The mean of SR's is 0.5, which 3 of GT's 4 are above; that of GT's is 2, which 3 of SR's 4 are below.
        assert log["d_accuracy"].item() == 0.75
        assert (log["out_d_real"].item(), log["out_d_fake"].item()) == (2, 0.5)

    @pytest.mark.parametrize(("iters", "init", "trained"), [(2, 0, [2, 4]), (1, 3, [4]), (2, 2, [4])])
    def test_its_turn_alone(self, nets, terms, batch, iters, init, trained):
        for iteration in range(1, 5):
            spy, g_spy = Spy(nets[1]), Spy(nets[0])
            log = run(
                g_spy,
                spy,
                terms,
                replace(batch, iteration=iteration),
                diagnose=True,
                net_d_iters=iters,
                net_d_init_iters=init,
            ).log
            both = iteration in trained
            assert ("l_g_pix" in log, "grad_g_pix" in log, "l_d_real" in log) == (both, both, True)
            assert all((p.grad is not None) == both for p in nets[0].parameters())
            assert all(p.grad is not None for p in nets[1].parameters())
            assert [call["reaches"] for call in spy.calls] == [False, both]
            assert [call["grad"] for call in g_spy.calls] == [both], "G keeps nothing for a gradient it does not get"


class TestTargets:
    def test_terms_and_d_see_their_own(self, nets, terms, batch):
        """A target for a term changes its value, and nothing else; D sees that of the adversarial term."""
        other = batch.gt.flip(-1)
        plain = run(*nets, terms, batch).log
        for key in ("l_g_pix", "l_g_gram"):
            log = run(*nets, terms, replace(batch, targets={key: other})).log
            assert [name for name in plain if name.startswith("l_") and log[name] != plain[name]] == [key]
        spy = Spy(nets[1])
        run(nets[0], spy, terms, replace(batch, targets={"l_g_gan": other}))
        assert torch.equal(spy.calls[0]["x"], other * MaskedRaGANLoss().mask(batch.gt))

    def test_the_value_is_that_of_the_target(self, nets, terms, batch):
        other = batch.gt.flip(-1)
        state = run(*nets, terms, replace(batch, targets={"l_g_pix": other}))
        assert float(state.log["l_g_pix"]) == pytest.approx(float((state.sr - other).abs().mean()))

    def test_parts_have_their_share(self, batch):
        other = batch.gt.flip(-1)
        first, second = replace(batch, targets={"l_g_pix": other}).parts(2)
        assert torch.equal(first.target("l_g_pix"), other[:1])
        assert torch.equal(second.target("l_g_pix"), other[1:])
        assert torch.equal(second.target("l_g_gram"), batch.gt[1:])


class TestScale:
    """A gradient scaler's factor is in the passes' gradients, and neither in the log nor in what the optimizers see."""

    @pytest.mark.parametrize("shares", [False, True])
    def test_feature(self, nets, terms, batch, shares):
        log = run(*nets, terms, batch, diagnose=True, share_passes=shares).log
        gradients, seen = grads(*nets), []
        nets[1].conv0_0.weight.register_hook(lambda gradient: seen.append(gradient.norm()))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        scaled = run(*nets, terms, batch, diagnose=True, share_passes=shares, scaler=scaler).log
        for key, value in log.items():
            torch.testing.assert_close(scaled[key], value, rtol=1e-4, atol=1e-9)
        for one, other in zip(grads(*nets), gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert seen[0].item() == pytest.approx(1024 * nets[1].conv0_0.weight.grad.norm().item(), rel=1e-3)


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
        losses = {"pixel_opt": L1Loss(), "gram_patch_opt": GramPatchLoss(center=True)}
        terms = build_terms({key: {"type": "x"} for key in losses}, lambda key, block: losses[key.split(".")[1]])
        whole = run(nets[0], None, terms, batch, diagnose=True)
        expected = grads(nets[0])
        parts = run(nets[0], None, terms, batch, diagnose=True, accumulate=2)
        torch.testing.assert_close(parts.sr, whole.sr, rtol=1e-5, atol=1e-6)
        for key, value in whole.log.items():
            torch.testing.assert_close(parts.log[key], value, rtol=1e-4, atol=1e-8)
        for one, other in zip(grads(nets[0]), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


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

    def test_gradient_of_upstream_ganloss(self):
        """Through the mean of the fakes for G, through no mean for D."""
        torch.manual_seed(0)
        real, fake = (torch.randn(5, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
        ours = Relativistic(GANLoss("vanilla", loss_weight=0.3))
        r, f = real.detach(), fake.detach()
        above, below = torch.sigmoid(r - f.mean()), torch.sigmoid(f - r.mean())
        # d softplus(x) = sigmoid(x) dx: of softplus(real - mean of fakes) and of softplus(mean of reals - fake)
        of_fake = 0.3 / 2 * ((below - 1) / 5 - above.mean() / 5)
        torch.testing.assert_close(torch.autograd.grad(ours.generator(real, fake), fake)[0], of_fake)
        gradients = torch.autograd.grad(sum(ours.discriminator(real, fake)), (real, fake))
        for gradient, expected in zip(gradients, ((above - 1) / 10, below / 10), strict=True):
            torch.testing.assert_close(gradient, expected)

    def test_back_projection(self, batch):
        value = BackProjectionTerm("l_g_bp", nn.L1Loss())(StepState(batch, batch.gt))
        down = [imresize(gt.permute(1, 2, 0).numpy().astype(np.float64), 0.25) for gt in batch.gt]
        lq = batch.lq.permute(0, 2, 3, 1).numpy()
        assert value.item() == pytest.approx(np.abs(np.stack(down) - lq).mean(), abs=1e-6)

    @pytest.mark.parametrize(
        ("block", "form"),
        [("pixel_opt", "image"), ("back_projection_opt", "image"), ("disc_perceptual_opt", "features")],
    )
    def test_losses_get_sr_first(self, batch, block, form):
        """Some have a gradient for it only."""
        seen = []

        class Record(nn.Module):
            taps = ("conv1_0",)

            def forward(self, *given: Any) -> Tensor:
                seen[:] = [value["conv1_0"] if form == "features" else value for value in given]
                return torch.zeros(())

        Record.form = form
        (term,) = build_terms({block: {"type": "x"}}, lambda key, options: Record())
        sr = torch.rand_like(batch.gt).requires_grad_()
        term(StepState(batch, sr, features_gt={"conv1_0": batch.gt}, features_sr={"conv1_0": 2 * sr}))
        assert [value.requires_grad for value in seen] == [True, False]

    def test_warps_and_draws_depend_on_seed_iteration_and_sample(self, batch):
        seen = []

        class Record(GramPatchLoss):
            def forward(self, sr: Tensor, gt: Tensor, theta: Tensor, **options: Any) -> Tensor:
                seen.append(torch.cat([theta.flatten(1), options["draw"]], dim=1))
                return super().forward(sr, gt, theta, **options)

        term = TextureTerm("l_g_gram", Record(top_k=2))
        other = {"first_index": 1, "stride": 5}
        for changes in ({}, {}, {"iteration": 8}, {"manual_seed": 4}, {"first_index": 1}, other, {"first_index": 6}):
            values = {"lq": batch.lq, "gt": batch.gt, "iteration": 7, "manual_seed": 3, "first_index": 0} | changes
            term(StepState(Batch(**values), batch.gt))
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
            assert term(StepState(batch, batch.gt)).item() == expected

    def test_extra_terms_and_blocks_that_are_off(self):
        built = build_terms(
            {"pixel_opt": None, "extra_terms": {"edges": {"type": "L1Loss"}}, "total_iter": 3},
            lambda key, block: nn.L1Loss(),
        )
        assert [term.key for term in built] == ["l_g_edges"]

    @pytest.mark.parametrize(
        ("blocks", "has_d", "expected"),
        [
            ([], False, ["train"]),
            (["pixel_opt"], False, []),
            (["pixel_opt"], True, ["train.gan_opt"]),
            (["pixel_opt", "gan_opt"], True, []),
            (["gan_opt", "disc_perceptual_opt"], False, ["network_d"]),
            (["disc_perceptual_opt"], True, ["train.gan_opt"]),
        ],
    )
    def test_what_blocks_lack(self, blocks, has_d, expected):
        train = {block: {"type": "x"} for block in blocks} | {"extra_terms": None}
        assert [key for key, _ in term_mistakes(train, has_d)] == expected

    def test_two_texture_losses_report_under_their_own_names(self, batch):
        losses = {"gram_patch_opt": GramPatchLoss(center=True), "coarse": GramPatchLoss(patch_size=8)}
        blocks = {"gram_patch_opt": {"type": "x"}, "extra_terms": {"coarse": {"type": "x"}}}
        terms = build_terms(blocks, lambda key, block: losses[key.split(".")[-1]])
        state = StepState(batch, nn.functional.avg_pool2d(batch.gt, 3, 1, 1), report={})
        for term in terms:
            term(state)
        assert state.report["gram_distance"] != state.report["coarse_distance"]

    def test_a_loss_of_features_has_to_name_them(self):
        class Nameless(nn.Module):
            form = "features"

        with pytest.raises(OptionError, match=r"^train\.disc_perceptual_opt: Nameless names no .* `taps`, a list$"):
            build_terms({"disc_perceptual_opt": {"type": "x"}}, lambda key, block: Nameless())

    def test_taps_are_a_list(self):
        class Word(nn.Module):
            form = "features"
            taps = "conv1_0"

        with pytest.raises(OptionError, match=r"`taps`, a list$"):
            build_terms({"disc_perceptual_opt": {"type": "x"}}, lambda key, block: Word())

    @pytest.mark.parametrize(
        ("block", "form", "method"), [("gan_opt", "gan", "mask"), ("gram_patch_opt", "texture", "random_numbers")]
    )
    def test_a_loss_has_what_its_form_asks_for(self, block, form, method):
        bare = type("Bare", (nn.Module,), {"form": form})
        with pytest.raises(OptionError, match=rf"^train\.{block}: Bare .* '{form}', but no method `{method}`$"):
            build_terms({block: {"type": "x"}}, lambda key, options: bare())

    def test_two_blocks_of_one_log_key(self):
        train = {"pixel_opt": {"type": "x"}, "extra_terms": {"pix": {"type": "x"}, "edges": {"type": "x"}}}
        ((where, problem),) = term_mistakes(train, False)
        assert (where, problem) == (
            "train.extra_terms.pix",
            "would be logged as l_g_pix, as train.pixel_opt is; give it another name",
        )

    @pytest.mark.parametrize(
        ("value", "what"), [(torch.ones(2, 3), r"a tensor of shape \(2, 3\)"), (1.5, "a float"), (None, "a NoneType")]
    )
    def test_a_loss_that_is_not_a_scalar(self, nets, batch, value, what):
        class Other(nn.Module):
            def forward(self, sr: Tensor, gt: Tensor) -> Any:
                return value

        term = build_terms({"pixel_opt": {"type": "x"}}, lambda key, block: Other())
        with pytest.raises(ValueError, match=rf"^l_g_pix: the loss returned {what}, not a scalar$"):
            run(nets[0], None, term, batch)

    @pytest.mark.parametrize(("block", "loss"), [("pixel_opt", MaskedRaGANLoss), ("gram_patch_opt", L1Loss)])
    def test_a_loss_in_a_block_of_another_form(self, block, loss):
        """BasicSR's own loop checks no option file."""
        with pytest.raises(
            OptionError, match=rf"^train\.{block}\.type: {loss.__name__} is called as a loss of the form"
        ):
            build_terms({block: {"type": "x"}}, lambda key, options: loss())
