import pytest
import torch
from basicsr.archs.discriminator_arch import VGGStyleDiscriminator

from gramgan_plugin.archs import GramGANDiscriminator

SIZES = {64: (4, 4), 96: (5, 3), 128: (5, 4), 192: (6, 3), 256: (6, 4)}  # size -> stages, side at the end


def image(size: int, n: int = 2, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def discriminator(size: int = 192, num_feat: int = 4, **options) -> GramGANDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(size)
        return GramGANDiscriminator(num_feat=num_feat, input_size=size, **options)


class TestGramGANDiscriminator:
    @pytest.mark.parametrize("size", SIZES)
    def test_smoke(self, size):
        logits = discriminator(size)(image(size))
        assert logits.shape == (2, 1)

    @pytest.mark.parametrize(("size", "stages", "side"), [(size, *rest) for size, rest in SIZES.items()])
    def test_cardinality(self, size, stages, side):
        net = discriminator(size)
        widths = [4, 8, 16, 32, 32, 32][:stages]
        _, features = net(image(size), taps=net.tap_names)
        expected = {}
        for stage, width in enumerate(widths):
            expected[f"conv{stage}_0"] = (2, width, size >> stage, size >> stage)
            expected[f"conv{stage}_1"] = (2, width, size >> (stage + 1), size >> (stage + 1))
        assert {tap: tuple(value.shape) for tap, value in features.items()} == expected
        assert net.linear1.in_features == 32 * side**2
        assert net.linear1.out_features == 100

    def test_layers_at_192(self):
        net = discriminator(192, num_feat=64)
        convs = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
        assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [
            (3, 64, 3, 1), (64, 64, 4, 2),
            (64, 128, 3, 1), (128, 128, 4, 2),
            (128, 256, 3, 1), (256, 256, 4, 2),
            (256, 512, 3, 1), (512, 512, 4, 2),
            (512, 512, 3, 1), (512, 512, 4, 2),
            (512, 512, 3, 1), (512, 512, 4, 2),
        ]  # fmt: skip
        assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules()) == 11
        assert not hasattr(net, "bn0_0")
        assert net.linear1.in_features == 512 * 3 * 3

    @pytest.mark.parametrize("size", [128, 256])
    @pytest.mark.parametrize("training", [False, True])
    def test_equals_basicsr(self, size, training):
        ours, theirs = discriminator(size), VGGStyleDiscriminator(3, 4, input_size=size)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict(), strict=True)
        fresh = VGGStyleDiscriminator(3, 4, input_size=size)
        second = discriminator(size)
        second.load_state_dict(fresh.state_dict(), strict=True)
        for a, b in [(ours, theirs), (second, fresh)]:
            a.train(training)
            b.train(training)
            torch.testing.assert_close(a(image(size)), b(image(size)), rtol=0, atol=0)
            torch.testing.assert_close(a.state_dict(), b.state_dict())  # running statistics too

    def test_taps_are_after_the_activation(self):
        net = discriminator(192).eval()
        logits, features = net(image(192), taps=("conv2_0", "conv0_0"))
        x = torch.nn.functional.leaky_relu(net.conv0_0(image(192)), 0.2)
        torch.testing.assert_close(features["conv0_0"], x)
        for name in ("0_1", "1_0", "1_1", "2_0"):
            x = getattr(net, f"conv{name}")(x)
            x = torch.nn.functional.leaky_relu(getattr(net, f"bn{name}")(x), 0.2)
        torch.testing.assert_close(features["conv2_0"], x)
        torch.testing.assert_close(logits, net(image(192)))

    def test_taps_by_name_and_number(self):
        net = discriminator(192)
        assert net.resolve_taps((5, 11)) == ("conv2_0", "conv5_0")
        assert net.resolve_taps(("conv5_0", 5)) == ("conv5_0", "conv2_0")
        assert discriminator(128).resolve_taps([5, 9]) == ("conv2_0", "conv4_0")
        _, features = net(image(192), taps=(11, "conv2_0"))
        assert list(features) == ["conv5_0", "conv2_0"]
        assert net(image(192), taps=())[1] == {}

    def test_gradient(self):
        net = discriminator(64)
        x = image(64).requires_grad_()
        logits, features = net(x, taps=("conv1_0", "conv3_1"))
        (sum(value.square().mean() for value in features.values()) + logits.mean()).backward()
        assert (x.grad.abs().sum(dim=1) > 0).all()
        assert all(parameter.grad is not None for parameter in net.parameters())

    def test_gradcheck(self):
        net = discriminator(64, num_feat=1).double().eval()
        x = image(64, n=1).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: net(x), x, fast_mode=True)

    def test_channels_last(self):
        net = discriminator(192).eval()
        logits, features = net(image(192), taps=(5, 11))
        last = net.to(memory_format=torch.channels_last)
        x = image(192).to(memory_format=torch.channels_last)
        logits_last, features_last = last(x, taps=(5, 11))
        torch.testing.assert_close(logits_last, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features_last, features, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_channels(self, channels):
        assert discriminator(64, num_in_ch=channels)(image(64, channels=channels)).shape == (2, 1)

    def test_exception(self):
        with pytest.raises(ValueError, match="input_size: expected one of 64, 96, 128, 192, 256, got 100"):
            GramGANDiscriminator(input_size=100)
        net = discriminator(128)
        for shape in [(1, 3, 128, 192), (1, 3, 192, 192), (1, 1, 128, 128), (3, 128, 128)]:
            with pytest.raises(ValueError, match=r"expected \(N, 3, 128, 128\)"):
                net(torch.zeros(shape))

    @pytest.mark.parametrize("taps", [(5, 11), ("conv5_0",), (0,), (-1,), ("linear1",), (True,), (5.0,)])
    def test_unknown_tap(self, taps):
        net = discriminator(128)
        with pytest.raises(ValueError, match=r"no convolution .* at input size 128, only 1 to 10: conv0_0, .*conv4_1"):
            net.resolve_taps(taps)

    def test_bad_taps(self):
        with pytest.raises(ValueError, match="expected a list"):
            discriminator(128).resolve_taps("conv2_0")
        with pytest.raises(ValueError, match="names a convolution twice"):
            discriminator(128).resolve_taps((5, "conv2_0"))
