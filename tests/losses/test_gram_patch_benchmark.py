import torch

from benchmarks.gram_patch_loss import LOSSES, exactness, photos
from gramgan_plugin.functional import random_theta


class TestBenchmark:
    def test_what_is_compared_computes_the_same(self):
        sr, gt = (image.double() for image in photos(2, 48))
        theta = random_theta(2, 1, 0.003, (0,))
        values, gradients = {}, {}
        for name, loss in LOSSES.items():
            x = sr.clone().requires_grad_()
            values[name] = loss(x, gt, theta)
            (gradients[name],) = torch.autograd.grad(values[name], x)
        for ours, others in (
            ("(e) ours, pixels", "(a)"),
            ("(d) ours, uncentred", "(b)"),
            ("(d) ours, uncentred", "(c)"),
        ):
            (other,) = (name for name in LOSSES if name.startswith(others))
            torch.testing.assert_close(values[ours], values[other], rtol=1e-9, atol=0)
            torch.testing.assert_close(gradients[ours], gradients[other], rtol=1e-9, atol=1e-12)

    def test_exactness(self):
        sr, gt = photos(1, 96)
        assert exactness(gt, sr) == {"uncentred": 1, "centred": 1, "pixels": 1}
