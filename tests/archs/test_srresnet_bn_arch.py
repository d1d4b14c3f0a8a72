import pytest
import torch
from torch.nn import functional as F

from gramgan_plugin.archs import SRResNetBN


def image(height: int = 12, width: int = 16, n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def generator(**options) -> SRResNetBN:
    """A small one whose BatchNorms and slopes are not those of a new network."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = SRResNetBN(**({"num_feat": 8, "num_block": 2} | options))
        for name, tensor in net.state_dict().items():
            if "bn" in name and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
            elif "prelu" in name:
                tensor.fill_(float(torch.rand(())))
    return net


def by_hand(net: SRResNetBN, x: torch.Tensor, blocks: int, stages: int, last: str = "conv_last") -> torch.Tensor:
    """The published network layer by layer in evaluation mode, from the state dict alone."""
    state = net.state_dict()

    def conv(x, name, padding):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def norm(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{kind}"].view(-1, 1, 1) for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def prelu(x, name):
        return torch.where(x > 0, x, state[f"{name}.weight"] * x)

    x = first = prelu(conv(x, "conv_first", 4), "prelu_first")
    for block in range(blocks):
        inner = prelu(norm(conv(x, f"body.{block}.conv1", 1), f"body.{block}.bn1"), f"body.{block}.prelu")
        x = x + norm(conv(inner, f"body.{block}.conv2", 1), f"body.{block}.bn2")
    x = first + norm(conv(x, "conv_body", 1), "bn_body")
    for stage in range(1, stages + 1):
        x = conv(x, f"upconv{stage}", 1)
        n, channels, height, width = x.shape
        x = x.reshape(n, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        x = prelu(x.reshape(n, channels // 4, 2 * height, 2 * width), f"prelu_up{stage}")
    return conv(x, last, 4)


class TestSRResNetBN:
    @pytest.mark.parametrize("upscale", [2, 4, 8])
    def test_cardinality(self, upscale):
        assert generator(upscale=upscale)(image(6, 5)).shape == (2, 3, 6 * upscale, 5 * upscale)

    @pytest.mark.parametrize(("upscale", "stages"), [(2, 1), (4, 2), (8, 3)])
    def test_feature(self, upscale, stages):
        net = generator(upscale=upscale).eval()
        torch.testing.assert_close(net(image()), by_hand(net, image(), 2, stages), rtol=1e-4, atol=1e-5)

    def test_tanh(self):
        net = generator(output="tanh").eval()
        sr = net(image() * 20 - 10)
        torch.testing.assert_close(sr, (torch.tanh(by_hand(net, image() * 20 - 10, 2, 2, "conv_tanh")) + 1) / 2)
        assert 0 <= sr.min() < 0.3 < 0.7 < sr.max() <= 1
        assert not generator().state_dict().keys() & {"conv_tanh.weight", "conv_tanh.bias"}

    @pytest.mark.parametrize(
        ("blocks", "upscale", "expected"), [(16, 4, 1_549_462), (16, 2, 1_401_749), (5, 8, 881_932)]
    )
    def test_number_of_parameters(self, blocks, upscale, expected):
        conv_first = 9 * 9 * 3 * 64 + 64
        conv = 3 * 3 * 64 * 64 + 64
        norm, slope = 64 + 64, 1
        stage = 3 * 3 * 64 * 256 + 256 + slope
        conv_last = 9 * 9 * 64 * 3 + 3
        stages = {2: 1, 4: 2, 8: 3}[upscale]
        count = conv_first + slope + blocks * (2 * conv + 2 * norm + slope) + conv + norm + stages * stage + conv_last
        net = SRResNetBN(num_block=blocks, upscale=upscale)
        assert sum(parameter.numel() for parameter in net.parameters()) == count == expected

    def test_the_last_convolution_holds_the_map_of_ranges(self):
        """SR in [-1, 1] and in [0, 1] are of one family of functions."""
        net, other = generator().eval(), generator().eval()
        with torch.no_grad():
            other.conv_last.weight.div_(2)
            other.conv_last.bias.div_(2).add_(0.5)
        torch.testing.assert_close(other(image()), (net(image()) + 1) / 2)

    def test_gradient(self):
        net = generator()
        x = image(6, 6).requires_grad_()
        net(x).square().mean().backward()
        assert (x.grad.abs().sum(dim=1) > 0).all()
        assert all(parameter.grad is not None for parameter in net.parameters())

    def test_gradcheck(self):
        net = generator(num_feat=2, num_block=1, upscale=2).double().eval()
        assert torch.autograd.gradcheck(net, image(5, 4, n=1).double().requires_grad_(), fast_mode=True)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_channels(self, channels):
        net = generator(num_in_ch=channels, num_out_ch=channels)
        assert net(image(6, 5, channels=channels)).shape == (2, channels, 24, 20)

    def test_channels_last(self):
        net = generator().eval()
        expected = net(image())
        last = net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(image().to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)

    def test_exception(self):
        with pytest.raises(ValueError, match="upscale: expected one of 2, 4, 8, got 3"):
            SRResNetBN(upscale=3)
        with pytest.raises(ValueError, match="output: expected one of linear, tanh, got 'sigmoid'"):
            SRResNetBN(output="sigmoid")
