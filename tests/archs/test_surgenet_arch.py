import pytest
import torch
from torch.nn import functional as F

from gramgan_plugin.archs import SuRGeNet
from gramgan_plugin.archs.surgenet_arch import ConvexMix
from gramgan_plugin.checkpoints.generators import recognise


def image(height: int = 8, width: int = 6, n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def generator(**options) -> SuRGeNet:
    """A small one whose mixes and slopes are not those of a new network."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = SuRGeNet(**({"num_feat": 4, "num_block": 2} | options))
        for name, tensor in net.state_dict().items():
            if "prelu" in name or "mix" in name:
                tensor.copy_(torch.randn(tensor.shape))
    return net


def by_hand(net, x, blocks, steps):
    """The network layer by layer, from the state dict alone."""
    state = net.state_dict()

    def conv(x, name):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def prelu(x, name):
        return torch.where(x > 0, x, state[f"{name}.weight"] * x)

    def mix(name, *features):
        powers = state[f"{name}.weights"].exp()
        return sum(power * one for power, one in zip(powers, features, strict=True)) / powers.sum()

    def body(x, name):
        for block in range(blocks):
            x = x + conv(prelu(conv(x, f"{name}.{block}.conv1"), f"{name}.{block}.prelu"), f"{name}.{block}.conv2")
        return x

    first = prelu(conv(x, "conv_first"), "prelu_first")
    wide = prelu(conv(mix("mix0", first, body(first, "body0")), "conv_wide"), "prelu_wide")
    x = mix("mix1", wide, body(wide, "body1"), conv(first, "conv_skip"))
    for step in range(steps):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = prelu(conv(x, f"upconvs.{step}.0"), f"upconvs.{step}.1")
    return torch.sigmoid(2 * conv(x, "conv_last"))  # (tanh(x) + 1) / 2


class TestSuRGeNet:
    @pytest.mark.parametrize(("upscale", "steps"), [(2, 1), (4, 2), (8, 3)])
    def test_feature(self, upscale, steps):
        net = generator(upscale=upscale)
        assert net(image()).shape == (2, 3, 8 * upscale, 6 * upscale)
        torch.testing.assert_close(net(image()), by_hand(net, image(), 2, steps), rtol=1e-4, atol=1e-6)

    def test_number_of_parameters(self):
        def conv(kernel, channels, width):
            return kernel**2 * channels * width + width

        slope = 1
        count = conv(9, 3, 64) + slope + 8 * (2 * conv(3, 64, 64) + slope) + 2
        count += conv(3, 64, 128) + slope + 8 * (2 * conv(3, 128, 128) + slope) + conv(1, 64, 128) + 3
        count += 2 * (conv(3, 128, 128) + slope) + conv(9, 128, 3)
        net = SuRGeNet()
        assert sum(parameter.numel() for parameter in net.parameters()) == count == 3_376_284
        assert sum(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in net.modules()) == 0

    def test_range(self):
        sr = generator()(image() * 200 - 100)
        assert 0 <= sr.min() < 0.2 < 0.8 < sr.max() <= 1

    def test_any_size(self):
        net = generator()
        for height, width in ((1, 1), (5, 7), (16, 3)):
            assert net(image(height, width)).shape == (2, 3, 4 * height, 4 * width)

    def test_gradient(self):
        net = generator()
        x = image().requires_grad_()
        net(x).square().mean().backward()
        assert (x.grad.abs().sum(dim=1) > 0).all()
        assert all((parameter.grad != 0).any() for parameter in net.parameters())

    def test_gradcheck(self):
        net = generator(num_feat=1, num_block=1, upscale=2, num_in_ch=1, num_out_ch=1).double()
        x = image(4, 3, n=1, channels=1).double().requires_grad_()
        assert torch.autograd.gradcheck(net, x, fast_mode=True)

    def test_channels_last(self):
        net = generator()
        expected = net(image())
        last = net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(image().to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("upscale", [2, 4, 8])
    def test_its_files_are_recognised(self, upscale):
        net = generator(upscale=upscale, num_in_ch=1, num_out_ch=1)
        found = recognise(net.state_dict())
        assert found.network_g() == {
            "type": "SuRGeNet", "num_in_ch": 1, "num_out_ch": 1, "num_feat": 4, "num_block": 2, "upscale": upscale,
        }  # fmt: skip
        assert found.scale == upscale
        x = image(channels=1)
        torch.testing.assert_close(found.build()(x), net(x), rtol=0, atol=0)
        for drop in ("mix1.weights", "conv_skip.bias", "body1.1.conv2.weight"):
            assert recognise({name: tensor for name, tensor in net.state_dict().items() if name != drop}) is None

    def test_exception(self):
        with pytest.raises(ValueError, match="upscale: expected one of 2, 4, 8, got 3"):
            SuRGeNet(upscale=3)


class TestConvexMix:
    def test_starts_as_the_mean(self):
        features = [image(), 1 - image(), image() ** 2]
        torch.testing.assert_close(ConvexMix(3)(*features), sum(features) / 3)

    def test_convex(self):
        mix = ConvexMix(3)
        mix.weights.data = torch.tensor([3.0, -40.0, 1.0])
        low, high = torch.zeros(2, 2), torch.ones(2, 2)
        assert mix(low, high, low).max().item() < 1e-6
        torch.testing.assert_close(mix(low, low, high), torch.full((2, 2), 1 / (1 + torch.e**2)))

    def test_another_number_of_features(self):
        with pytest.raises(ValueError, match="shorter"):
            ConvexMix(3)(image(), image())
