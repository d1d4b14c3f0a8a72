import numpy as np
import pytest
import torch

from gramgan_plugin.losses import DiscPerceptualLoss


def features(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv2_0": (2, 3, 4, 4), "conv5_0": (2, 5, 2, 2)}
    return {tap: torch.randn(shape, generator=generator, dtype=dtype) for tap, shape in shapes.items()}


class TestDiscPerceptualLoss:
    def test_smoke(self):
        loss = DiscPerceptualLoss()
        assert loss.taps == ("conv2_0", "conv5_0")
        assert loss.bn == "batch"
        assert loss(features(0), features(1)).shape == ()
        assert DiscPerceptualLoss(taps=[5, 11], bn="running").taps == (5, 11)

    @pytest.mark.parametrize("criterion", ["mse", "l1"])
    def test_feature(self, criterion):
        sr, gt = features(0), features(1)
        expected = 0
        for tap in sr:
            d = (sr[tap] - gt[tap]).numpy()
            expected += np.mean(d**2) if criterion == "mse" else np.mean(np.abs(d))
        got = DiscPerceptualLoss(loss_weight=0.5, criterion=criterion)(sr, gt)
        np.testing.assert_allclose(float(got), 0.5 * expected, rtol=1e-12)

    def test_gradient(self):
        sr, gt = features(0), features(1)
        for x in (*sr.values(), *gt.values()):
            x.requires_grad_()
        DiscPerceptualLoss()(sr, gt).backward()
        assert all((x.grad != 0).all() for x in sr.values())
        assert all(x.grad is None for x in gt.values())

    @pytest.mark.parametrize("criterion", ["mse", "l1"])
    def test_gradcheck(self, criterion):
        loss, gt = DiscPerceptualLoss(criterion=criterion), features(1)
        inputs = tuple(x.requires_grad_() for x in features(0).values())
        assert torch.autograd.gradcheck(lambda *xs: loss(dict(zip(gt, xs, strict=True)), gt), inputs)

    def test_dtype(self):
        sr, gt = ({tap: x.bfloat16() for tap, x in features(seed).items()} for seed in (0, 1))
        got = DiscPerceptualLoss()(sr, gt)
        assert got.dtype == torch.float32
        exact = DiscPerceptualLoss()(*({tap: x.double() for tap, x in f.items()} for f in (sr, gt)))
        assert exact.dtype == torch.float64
        np.testing.assert_allclose(float(got), float(exact), rtol=1e-5)

    def test_exception(self):
        loss, sr = DiscPerceptualLoss(), features(0)
        with pytest.raises(ValueError, match="same taps"):
            loss(sr, {"conv2_0": sr["conv2_0"]})
        with pytest.raises(ValueError, match="at least one"):
            loss({}, {})
        with pytest.raises(ValueError, match="conv5_0: features of SR are"):
            loss(sr, {**sr, "conv5_0": torch.zeros(2, 5, 1, 2)})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"taps": ()}, "taps"),
            ({"taps": "conv2_0"}, "taps"),
            ({"criterion": "l2"}, "criterion"),
            ({"bn": True}, "bn"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=f"{message}: expected"):
            DiscPerceptualLoss(**options)
