import pytest
import torch
from basicsr.losses.gan_loss import GANLoss

from gramgan_plugin.functional import relativistic_discriminator_loss, relativistic_generator_loss


def logits(seed: int) -> torch.Tensor:
    return torch.randn(8, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def ra(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """D_Ra(a, b) as it is written."""
    return torch.sigmoid(a - b.mean())


class TestRelativisticGenerator:
    def test_feature(self):
        real, fake = logits(0), logits(1).requires_grad_()
        got = relativistic_generator_loss(real, fake)
        expected = (-torch.log(1 - ra(real, fake)).mean() - torch.log(ra(fake, real)).mean()) / 2
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(*(torch.autograd.grad(value, fake)[0] for value in (got, expected)))

    def test_real_is_constant(self):
        real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
        relativistic_generator_loss(real, fake).backward()
        assert real.grad is None
        assert (fake.grad != 0).all()

    def test_equals_basicsr(self):
        # As ESRGANModel combines it.
        real, fake = logits(0), logits(1)
        cri = GANLoss("vanilla", loss_weight=1.0)
        theirs = (cri(real - fake.mean(), False, is_disc=False) + cri(fake - real.mean(), True, is_disc=False)) / 2
        torch.testing.assert_close(relativistic_generator_loss(real, fake), theirs)

    def test_extreme_logits(self):
        real, fake = torch.full((2, 1), 200.0), torch.full((2, 1), -200.0)
        assert float(relativistic_generator_loss(real, fake)) == 400.0
        assert float(relativistic_generator_loss(fake, real)) == 0.0

    def test_gradcheck(self):
        real, fake = logits(0), logits(1).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: relativistic_generator_loss(real, x), fake)

    def test_dtype(self):
        real, fake = logits(0).bfloat16(), logits(1).bfloat16()
        got = relativistic_generator_loss(real, fake)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, relativistic_generator_loss(real.float(), fake.float()))
        assert relativistic_generator_loss(logits(0), logits(1)).dtype == torch.float64


class TestMeans:
    @staticmethod
    def shifted(real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 2 * real.mean() + 0.5, 3 * fake.mean() - 1

    def test_generator(self):
        real, fake = logits(0), logits(1).requires_grad_()
        mean_real, mean_fake = self.shifted(real, fake)
        expected = -torch.log(1 - torch.sigmoid(real - mean_fake)).mean() / 2
        expected = expected - torch.log(torch.sigmoid(fake - mean_real)).mean() / 2
        got = relativistic_generator_loss(real, fake, self.shifted)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(*(torch.autograd.grad(value, fake)[0] for value in (got, expected)))

    @pytest.mark.parametrize("detach_mean", [False, True])
    def test_discriminator(self, detach_mean):
        real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
        mean_real, mean_fake = (x.detach() if detach_mean else x for x in self.shifted(real, fake))
        expected = (
            -torch.log(torch.sigmoid(real - mean_fake)).mean() / 2,
            -torch.log(1 - torch.sigmoid(fake - mean_real)).mean() / 2,
        )
        got = relativistic_discriminator_loss(real, fake, detach_mean, self.shifted)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(*(torch.autograd.grad(sum(pair), (real, fake)) for pair in (got, expected)))

    def test_which_means_are_constant(self):
        seen = []

        def means(real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append((real.requires_grad, fake.requires_grad))
            return real.mean(), fake.mean()

        real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
        relativistic_generator_loss(real, fake, means)
        relativistic_discriminator_loss(real, fake, True, means)
        relativistic_discriminator_loss(real, fake, False, means)
        assert seen == [(False, True), (False, False), (True, True)]


class TestRelativisticDiscriminator:
    @pytest.mark.parametrize("detach_mean", [False, True])
    def test_feature(self, detach_mean):
        real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
        got = relativistic_discriminator_loss(real, fake, detach_mean)
        b_fake, b_real = (fake.detach(), real.detach()) if detach_mean else (fake, real)
        expected = -torch.log(ra(real, b_fake)).mean() / 2, -torch.log(1 - ra(fake, b_real)).mean() / 2
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)
        grads = [torch.autograd.grad(sum(pair), (real, fake)) for pair in (got, expected)]
        torch.testing.assert_close(*grads)

    def test_detaching_matters(self):
        real, fake = logits(0).requires_grad_(), logits(1)
        grads = [
            torch.autograd.grad(sum(relativistic_discriminator_loss(real, fake, detach)), real)[0]
            for detach in (False, True)
        ]
        assert (grads[0] - grads[1]).abs().max() > 1e-3

    def test_equals_basicsr(self):
        real, fake = logits(0), logits(1)
        cri = GANLoss("vanilla", loss_weight=1.0)
        theirs = (
            cri(real - fake.mean(), True, is_disc=True) * 0.5,
            cri(fake - real.mean(), False, is_disc=True) * 0.5,
        )
        torch.testing.assert_close(relativistic_discriminator_loss(real, fake), theirs)

    def test_gradcheck(self):
        args = logits(0).requires_grad_(), logits(1).requires_grad_()
        assert torch.autograd.gradcheck(lambda a, b: relativistic_discriminator_loss(a, b, False), args)

    def test_autocast(self):
        real, fake = logits(0).float(), logits(1).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = relativistic_discriminator_loss(real, fake), relativistic_generator_loss(real, fake)
        outside = relativistic_discriminator_loss(real, fake), relativistic_generator_loss(real, fake)
        torch.testing.assert_close(inside, outside, rtol=0, atol=0)
