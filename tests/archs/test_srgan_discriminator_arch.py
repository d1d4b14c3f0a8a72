import pytest
import torch
from torch.nn import functional as F

from gramgan_plugin.archs import GramGANDiscriminator, SRGANDiscriminator

NAMES = ("conv0_0", "conv0_1", "conv1_0", "conv1_1", "conv2_0", "conv2_1", "conv3_0", "conv3_1")


def image(size: int = 32, n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def discriminator(size: int = 32, num_feat: int = 4, **options) -> SRGANDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return SRGANDiscriminator(num_feat=num_feat, input_size=size, **options)


def by_hand(net, x):
    """All features and the logits in training mode, layer by layer, from the state dict alone."""
    state, features = net.state_dict(), {}
    for number, name in enumerate(NAMES):
        x = F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=1 + number % 2, padding=1)
        if number > 0:
            bn = name.replace("conv", "bn")
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
            x = (x - mean) / (var + 1e-5).sqrt()
            x = x * state[f"{bn}.weight"].view(-1, 1, 1) + state[f"{bn}.bias"].view(-1, 1, 1)
        x = features[name] = torch.where(x > 0, x, 0.2 * x)
    x = F.linear(x.flatten(1), state["linear1.weight"], state["linear1.bias"])
    return F.linear(torch.where(x > 0, x, 0.2 * x), state["linear2.weight"], state["linear2.bias"]), features


class TestSRGANDiscriminator:
    @pytest.mark.parametrize("size", [16, 32, 80, 96])
    def test_cardinality(self, size):
        logits, features = discriminator(size)(image(size), taps=NAMES)
        assert logits.shape == (2, 1)
        assert [tuple(features[name].shape[1:]) for name in NAMES] == [
            (4, size, size), (4, size // 2, size // 2),
            (8, size // 2, size // 2), (8, size // 4, size // 4),
            (16, size // 4, size // 4), (16, size // 8, size // 8),
            (32, size // 8, size // 8), (32, size // 16, size // 16),
        ]  # fmt: skip

    def test_layers_and_number_of_parameters(self):
        net = SRGANDiscriminator()
        convs = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
        layers = [
            (3, 64, 1),
            (64, 64, 2),
            (64, 128, 1),
            (128, 128, 2),
            (128, 256, 1),
            (256, 256, 2),
            (256, 512, 1),
            (512, 512, 2),
        ]
        assert [(c.in_channels, c.out_channels, c.stride[0]) for c in convs] == layers
        count = 64  # the bias of the first; BatchNorm follows the others
        count += sum(9 * channels * width for channels, width, _ in layers)
        count += sum(2 * width for _, width, _ in layers[1:])
        count += 6 * 6 * 512 * 1024 + 1024 + 1024 + 1
        assert sum(parameter.numel() for parameter in net.parameters()) == count == 23_563_649
        assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()) == 7

    def test_feature(self):
        net = discriminator()
        logits, features = net(image(), taps=NAMES)
        expected, its_features = by_hand(net, image())
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features, its_features, rtol=1e-4, atol=1e-5)

    def test_taps_by_name_and_number(self):
        net = discriminator().eval()
        assert net.tap_names == NAMES == GramGANDiscriminator(num_feat=1, input_size=64).tap_names
        assert (
            net.resolve_taps((5, 8))
            == SRGANDiscriminator.resolve_taps(("conv2_0", "conv3_1"))
            == ("conv2_0", "conv3_1")
        )
        logits, features = net(image(), taps=(8, "conv2_0"))
        assert list(features) == ["conv3_1", "conv2_0"]
        torch.testing.assert_close(logits, net(image()))
        assert net(image(), taps=())[1] == {}

    def test_gradient(self):
        net = discriminator()
        x = image().requires_grad_()
        logits, features = net(x, taps=(2, 7))
        (sum(value.square().mean() for value in features.values()) + logits.mean()).backward()
        assert (x.grad.abs().sum(dim=1) > 0).all()
        assert all(parameter.grad is not None for parameter in net.parameters())

    def test_gradcheck(self):
        net = discriminator(16, num_feat=1).double().eval()
        assert torch.autograd.gradcheck(lambda x: net(x), image(16, n=1).double().requires_grad_(), fast_mode=True)

    def test_channels_last(self):
        net = discriminator().eval()
        logits, features = net(image(), taps=(5, 8))
        last = net.to(memory_format=torch.channels_last)
        logits_last, features_last = last(image().to(memory_format=torch.channels_last), taps=(5, 8))
        torch.testing.assert_close(logits_last, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features_last, features, rtol=1e-4, atol=1e-5)

    def test_exception(self):
        for size in (0, 8, 100):
            with pytest.raises(ValueError, match=f"input_size: expected a multiple of 16, got {size}"):
                SRGANDiscriminator(input_size=size)
        net = discriminator()
        for shape in [(1, 3, 32, 48), (1, 3, 48, 48), (1, 1, 32, 32), (3, 32, 32)]:
            with pytest.raises(ValueError, match=r"expected \(N, 3, 32, 32\)"):
                net(torch.zeros(shape))

    @pytest.mark.parametrize("taps", [(9,), ("conv4_0",), (0,), (True,), ("linear1",)])
    def test_unknown_tap(self, taps):
        with pytest.raises(ValueError, match=r"no convolution \S+, only 1 to 8: conv0_0, .*conv3_1"):
            discriminator()(image(), taps=taps)
