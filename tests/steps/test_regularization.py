"""What keeps D from winning early, and the balance of the terms, within an iteration."""

from dataclasses import replace

import basicsr  # noqa: F401
import pytest
import torch
from torch import nn

from gramgan_plugin.functional.noise import sample_noise
from gramgan_plugin.losses import ArtifactMapLoss, GradientPenalty, StandardGANLoss
from gramgan_plugin.steps.balance import SoftmaxBalance
from gramgan_plugin.steps.regularization import InstanceNoise
from gramgan_plugin.steps.terms import AdversarialTerm, AverageTerm, ImageTerm, LqTerm
from tests.steps.small_step import Generator, Spy, grads, run


class Critic(nn.Module):
    """A critic without BatchNorm, whose second derivatives do not vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 1, 3), nn.Flatten())

    def forward(self, x):
        return self.net(x).mean(dim=1, keepdim=True)


@pytest.fixture
def critic() -> Critic:
    torch.manual_seed(2)
    return Critic()


def losses() -> list:
    return [ImageTerm("l_g_pix", nn.L1Loss()), AdversarialTerm("l_g_gan", StandardGANLoss(1.0, "wgan"))]


class TestPenalty:
    @pytest.mark.parametrize("kind", ["wgan_gp", "r1", "r2", "r1r2"])
    def test_it_reaches_d_alone(self, nets, critic, batch, kind):
        """G's gradient is what it is without; D's is the sum of both, each computed for itself."""
        run(nets[0], critic, losses(), batch)
        g, d = grads(nets[0]), grads(critic)
        penalty = GradientPenalty(5.0, kind)
        log = run(nets[0], critic, losses(), batch, penalty=penalty).log
        assert all(torch.equal(a, b) for a, b in zip(g, grads(nets[0]), strict=True))
        both = grads(critic)
        sr = nets[0](batch.lq).detach()
        share = torch.zeros(2)
        if kind == "wgan_gp":
            from gramgan_plugin.functional.candidates import random_draw

            share = random_draw(2, 1, (3, 7, 1))[:, 0]
            assert share[0] != share[1]
        critic.zero_grad()
        value = penalty(critic, batch.gt, sr, share)
        value.backward()
        assert log["l_d_penalty"].item() == pytest.approx(value.item(), rel=1e-4)
        for whole, plain, p in zip(both, d, critic.parameters(), strict=True):
            # Biases of the last layer move the logits, and not their gradient.
            torch.testing.assert_close(whole, plain + (p.grad if p.grad is not None else 0), rtol=1e-3, atol=1e-6)
        assert any((a - b).abs().max() > 1e-6 for a, b in zip(both, d, strict=True))

    def test_only_every_so_often(self, nets, critic, batch):
        penalty = GradientPenalty(5.0, "r1", every=2)
        for every in (1, 2):  # of D's steps, so that its strength does not depend on how often D steps
            there = []
            for iteration in range(1, 13):
                now = replace(batch, iteration=iteration)
                log = run(nets[0], critic, losses(), now, penalty=penalty, net_d_every=every).log
                there += ["l_d_penalty" in log] if "l_d_real" in log else []
            assert sum(there) == len(there) / 2

    def test_parts_of_a_batch(self, nets, critic, batch):
        """Without BatchNorm, parts give the whole batch's gradients: also the random numbers are the same."""
        penalty = GradientPenalty(5.0, "wgan_gp")
        run(nets[0], critic, losses(), batch, penalty=penalty)
        whole = grads(*nets[:1], critic)
        run(nets[0], critic, losses(), batch, penalty=penalty, accumulate=2)
        for a, b in zip(whole, grads(*nets[:1], critic), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=3e-6)


class TestLazyDiscriminator:
    def test_turns(self, nets, terms, batch):
        """D rests in the other iterations: no gradient, no loss in the log; G is trained as ever."""
        for iteration, trains in ((7, False), (9, True)):
            for net in nets:
                net.zero_grad()
            spy = Spy(nets[1])
            log = run(nets[0], spy, terms, replace(batch, iteration=iteration), net_d_every=3).log
            assert all(p.grad is not None for p in nets[0].parameters())
            assert any(p.grad is not None for p in nets[1].parameters()) == trains
            assert ("l_d_real" in log) == trains
            assert "grad_norm_g" in log
            assert [call["trains"] for call in spy.calls] == [trains, trains]
            assert all(p.requires_grad for p in nets[1].parameters())

    def test_g_gets_the_same_gradient(self, nets, terms, batch):
        run(*nets, terms, batch)
        expected = grads(nets[0])
        run(*nets, terms, batch, net_d_every=2)
        for a, b in zip(expected, grads(nets[0]), strict=True):
            torch.testing.assert_close(a, b)


class TestInstanceNoise:
    def test_what_d_sees(self, nets, terms, batch):
        spy = Spy(nets[1])
        run(nets[0], spy, terms, batch)
        plain = [call["x"] for call in spy.calls]
        spy.calls.clear()
        run(nets[0], spy, terms, batch, noise=InstanceNoise(0.2, until=14))
        mask = terms[-1].loss.mask(batch.gt)
        for before, call in zip(plain, spy.calls, strict=True):
            noise = (call["x"] - before)[mask.expand_as(before) > 0]
            assert noise.std().item() == pytest.approx(0.1, rel=0.03)  # half of the way
            assert abs(noise.mean().item()) < 0.003
            assert torch.equal((call["x"] * (1 - mask)), torch.zeros_like(before))
        first, second = (call["x"] - before for before, call in zip(plain, spy.calls, strict=True))
        assert not torch.allclose(first, second, atol=1e-3), "GT and SR have different noise"

    def test_it_fades(self, nets, terms, batch):
        spy = Spy(nets[1])
        run(nets[0], spy, terms, batch)
        run(nets[0], spy, terms, batch, noise=InstanceNoise(0.2, until=7))
        assert torch.equal(spy.calls[0]["x"], spy.calls[2]["x"])

    def test_of_samples(self):
        """Of each sample for itself; a normal distribution."""
        images = torch.zeros(4, 3, 32, 32)
        whole = sample_noise(images, (3, 7, 2))
        parts = [sample_noise(images[start::2], (3, 7, 2), first_index=start, stride=2) for start in (0, 1)]
        assert torch.equal(whole[0::2], parts[0])
        assert torch.equal(whole[1::2], parts[1])
        assert not torch.equal(whole, sample_noise(images, (3, 8, 2)))
        assert whole.std().item() == pytest.approx(1, rel=0.02)
        assert (whole.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.01)

    @pytest.mark.parametrize("values", [(-0.1, 5), (0.1, 0)])
    def test_refused(self, values):
        with pytest.raises(ValueError, match="sigma must not be negative and until at least 1"):
            InstanceNoise(*values)


class TestBalance:
    def test_weights_of_the_terms(self, nets, batch):
        """The gradient is weighted; the log has the values and the weights."""
        pair = [ImageTerm("l_g_pix", nn.L1Loss()), ImageTerm("l_g_mse", nn.MSELoss())]
        plain = {}
        for term in pair:
            log = run(nets[0], None, [term], batch).log
            plain[term.key] = (log[term.key].item(), grads(nets[0]))
        log = run(nets[0], None, pair, batch, balance=SoftmaxBalance(0.5), diagnose=True).log
        values = torch.tensor([plain["l_g_pix"][0], plain["l_g_mse"][0]])
        weights = torch.softmax(values / 0.5, dim=0).tolist()
        for term, value, weight in zip(pair, values.tolist(), weights, strict=True):
            name = term.key.removeprefix("l_")
            assert log[f"weight_{name}"].item() == pytest.approx(weight)
            assert log[term.key].item() == pytest.approx(value)
        for whole, first, second in zip(grads(nets[0]), plain["l_g_pix"][1], plain["l_g_mse"][1], strict=True):
            torch.testing.assert_close(whole, weights[0] * first + weights[1] * second, rtol=1e-4, atol=1e-7)


class TestOtherForms:
    def test_loss_of_lq(self, nets, batch):
        seen = []

        class Loss(nn.Module):
            def forward(self, sr, gt, lq):
                seen.append((sr, gt, lq))
                return (sr - gt).abs().mean()

        run(nets[0], None, [LqTerm("l_g_x", Loss())], batch)
        ((sr, gt, lq),) = seen
        assert sr.requires_grad
        assert torch.equal(gt, batch.gt)
        assert torch.equal(lq, batch.lq)

    def test_loss_of_the_average(self, nets, batch):
        """The averaged network runs in iterations in which G is trained, without a graph, and gets no gradient."""
        torch.manual_seed(5)
        average = Generator().eval()
        log = run(nets[0], None, [AverageTerm("l_g_ldl", ArtifactMapLoss())], batch, net_g_average=average).log
        with torch.no_grad():
            expected = ArtifactMapLoss()(nets[0](batch.lq), batch.gt, average(batch.lq))
        assert log["l_g_ldl"].item() == pytest.approx(expected.item())
        assert expected > 0
        assert all(p.grad is None for p in average.parameters())
        assert all(p.grad is not None for p in nets[0].parameters())
