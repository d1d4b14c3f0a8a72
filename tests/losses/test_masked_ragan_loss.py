import numpy as np
import pytest
import skimage.data
import torch
from torch.nn import functional as F

from gramgan_plugin.losses import MaskedRaGANLoss


def photo_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """LQ (1, 3, 12, 16), GT (1, 3, 48, 64)."""
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float() / 255
    gt = image[:, :, 0:48, 330:394]
    return F.interpolate(gt, scale_factor=0.25, mode="bicubic", antialias=True), gt


def luma(image: torch.Tensor) -> np.ndarray:
    array = image.double().numpy()[0]
    return 0.2989 * array[0] + 0.587 * array[1] + 0.114 * array[2]


def logits(seed: int) -> torch.Tensor:
    return torch.randn(6, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestMask:
    def test_smoke(self):
        assert MaskedRaGANLoss().mask(photo_pair()[1]).shape == (1, 1, 48, 64)
        assert MaskedRaGANLoss(mask=None).mask(photo_pair()[1]) is None

    @pytest.mark.parametrize(
        "mask",
        [
            "gramgan",
            {"window": 8, "stride": 8, "threshold": 0.02},
            {"window": 4, "stride": 4, "threshold": 0.01},
        ],
    )
    def test_blocks(self, mask):
        _, gt = photo_pair()
        loss = MaskedRaGANLoss(mask=mask)
        window, threshold = (4, 0.005) if mask == "gramgan" else (mask["window"], mask["threshold"])
        y, expected = luma(gt), np.zeros((48, 64))
        for top in range(0, 48, window):
            for left in range(0, 64, window):
                block = y[top : top + window, left : left + window]
                expected[top : top + window, left : left + window] = np.std(block, ddof=1) >= threshold
        assert np.array_equal(loss.mask(gt)[0, 0].numpy(), expected)
        if mask != "gramgan":
            assert 0 < expected.mean() < 1

    @pytest.mark.parametrize("source", ["lq", "gt"])
    def test_dense(self, source):
        # Preset beby and the same window on GT, by windows of the reflected luma.
        lq, gt = photo_pair()
        mask = "beby" if source == "lq" else {"window": 11, "stride": 1, "threshold": 0.025, "source": "gt"}
        image = F.interpolate(lq, size=(48, 64), mode="bicubic", align_corners=False) if source == "lq" else gt
        y = np.pad(luma(image), 5, mode="reflect")
        expected = [[np.std(y[i : i + 11, j : j + 11], ddof=1) >= 0.025 for j in range(64)] for i in range(48)]
        got = MaskedRaGANLoss(mask=mask).mask(gt, lq)
        assert np.array_equal(got[0, 0].numpy(), expected)
        assert 0 < np.mean(expected) < 1

    def test_flat_block_at_a_bright_level(self):
        gt = torch.full((1, 3, 16, 16), 0.9)
        assert MaskedRaGANLoss().mask(gt).sum() == 0
        assert MaskedRaGANLoss(mask={"window": 11, "stride": 1, "threshold": 0.001}).mask(gt).sum() == 0

    @pytest.mark.parametrize("channels", [1, 4])
    def test_channels(self, channels):
        gt = torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.02
        expected = gt.double().mean(1)[0].numpy().reshape(2, 4, 2, 4).std(axis=(1, 3), ddof=1) >= 0.004
        loss = MaskedRaGANLoss(mask={"window": 4, "stride": 4, "threshold": 0.004})
        assert np.array_equal(loss.mask(gt)[0, 0].numpy(), np.kron(expected, np.ones((4, 4))))

    @pytest.mark.parametrize("preset", ["gramgan", "beby"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_dtype(self, preset, dtype):
        lq, gt = (x.to(dtype) for x in photo_pair())
        mask = MaskedRaGANLoss(mask=preset).mask(gt, lq)
        assert mask.dtype == dtype
        assert torch.equal(mask.float(), MaskedRaGANLoss(mask=preset).mask(gt.float(), lq.float()))
        assert not MaskedRaGANLoss(mask=preset).mask(gt.requires_grad_(), lq).requires_grad

    @pytest.mark.parametrize("preset", ["gramgan", "beby"])
    def test_autocast(self, preset):
        lq, gt = photo_pair()
        loss = MaskedRaGANLoss(mask=preset)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss.mask(gt, lq)
        assert torch.equal(inside, loss.mask(gt, lq))

    def test_exception(self):
        with pytest.raises(ValueError, match="whole windows of 4 px"):
            MaskedRaGANLoss().mask(torch.zeros(1, 3, 10, 8))
        with pytest.raises(ValueError, match="no lq was given"):
            MaskedRaGANLoss(mask="beby").mask(torch.zeros(1, 3, 16, 16))

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            ("flat", "expected one of gramgan, beby"),
            ({"window": 4, "stride": 4}, "missing: threshold"),
            ({"window": 4, "stride": 4, "threshold": 0.1, "size": 3}, "unknown: size"),
            ({"window": 4, "stride": 2, "threshold": 0.1}, "stride 1 or the window"),
            ({"window": 1, "stride": 1, "threshold": 0.1}, "window must be at least 2"),
            ({"window": 4, "stride": 4, "threshold": -0.1}, "threshold must not be negative"),
            ({"window": 4, "stride": 4, "threshold": 0.1, "source": "sr"}, "source must be gt or lq"),
        ],
    )
    def test_bad_options(self, mask, message):
        with pytest.raises(ValueError, match=message):
            MaskedRaGANLoss(mask=mask)


class TestLosses:
    def test_generator(self):
        real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
        d_real, d_fake = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
        expected = 0.005 * (-torch.log(1 - d_real).mean() - torch.log(d_fake).mean()) / 2
        got = MaskedRaGANLoss().generator(real, fake)
        torch.testing.assert_close(got, expected)
        (gradient,) = torch.autograd.grad(expected, fake)
        got.backward()
        torch.testing.assert_close(fake.grad, gradient)
        assert real.grad is None

    @pytest.mark.parametrize("detach_mean", [False, True])
    def test_discriminator(self, detach_mean):
        real, fake = logits(0).requires_grad_(), logits(1).requires_grad_()
        mean_real, mean_fake = real.mean(), fake.mean()
        if detach_mean:
            mean_real, mean_fake = mean_real.detach(), mean_fake.detach()
        expected = (
            -torch.log(torch.sigmoid(real - mean_fake)).mean() / 2,
            -torch.log(1 - torch.sigmoid(fake - mean_real)).mean() / 2,
        )
        got = MaskedRaGANLoss(loss_weight=0.1, detach_mean=detach_mean).discriminator(real, fake)
        torch.testing.assert_close(got, expected)  # loss_weight is the generator's
        torch.testing.assert_close(*(torch.autograd.grad(sum(pair), (real, fake)) for pair in (got, expected)))

    def test_detach_mean_leaves_the_generator_alone(self):
        values = [
            MaskedRaGANLoss(detach_mean=d).generator(logits(0), logits(1).requires_grad_()) for d in (False, True)
        ]
        assert torch.equal(*values)

    def test_gradcheck(self):
        loss = MaskedRaGANLoss(loss_weight=1.0, detach_mean=False)
        assert torch.autograd.gradcheck(lambda x: loss.generator(logits(0), x), logits(1).requires_grad_())
        both = logits(0).requires_grad_(), logits(1).requires_grad_()
        assert torch.autograd.gradcheck(loss.discriminator, both)

    def test_dtype(self):
        loss = MaskedRaGANLoss()
        real, fake = logits(0).bfloat16(), logits(1).bfloat16()
        assert loss.generator(real, fake).dtype == torch.float32
        assert torch.equal(loss.generator(real, fake), loss.generator(real.float(), fake.float()))
        assert loss.discriminator(real, fake)[0].dtype == torch.float32

    def test_autocast(self):
        loss, real, fake = MaskedRaGANLoss(), logits(0).float(), logits(1).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss.generator(real, fake), *loss.discriminator(real, fake)
        torch.testing.assert_close(
            inside, (loss.generator(real, fake), *loss.discriminator(real, fake)), rtol=0, atol=0
        )

    def test_exception(self):
        with pytest.raises(NotImplementedError, match=r"call \.generator"):
            MaskedRaGANLoss()(logits(0), logits(1))
