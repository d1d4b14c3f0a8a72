import pytest
import torch
from torch.nn import functional as F

from gramgan_plugin.archs import SRGANDiscriminator, SuRGeCritic

NAMES = SRGANDiscriminator.tap_names


def image(height: int = 32, width: int = 48, n: int = 2, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def critic(num_feat: int = 4, **options) -> SuRGeCritic:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return SuRGeCritic(num_feat=num_feat, **options)


def by_hand(net, x):
    """All features and the values, layer by layer, from the state dict alone."""
    state, features = net.state_dict(), {}
    for number, name in enumerate(NAMES):
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=1 + number % 2, padding=1)
        x = features[name] = torch.where(x > 0, x, 0.2 * x)
    x = F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), state["linear1.weight"], state["linear1.bias"])
    return F.linear(torch.where(x > 0, x, 0.2 * x), state["linear2.weight"], state["linear2.bias"]), features


class TestSuRGeCritic:
    @pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (96, 80)])
    def test_feature(self, height, width):
        net = critic()
        values, features = net(image(height, width), taps=NAMES)
        expected, its_features = by_hand(net, image(height, width))
        assert values.shape == (2, 1)
        torch.testing.assert_close(values, expected)
        torch.testing.assert_close(features, its_features)
        assert features["conv3_1"].shape == (2, 32, height // 16, width // 16)

    def test_number_of_parameters(self):
        layers = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
        count = sum(9 * channels * width + width for channels, width in layers) + 512 * 1024 + 1024 + 1024 + 1
        net = SuRGeCritic()
        assert sum(parameter.numel() for parameter in net.parameters()) == count == 5_211_713
        assert list(net.buffers()) == []

    def test_each_image_is_judged_alone(self):
        """As the gradient penalty needs it, in training mode too."""
        net, x = critic().train(), image(n=3)
        torch.testing.assert_close(net(x)[1:2], net(x[1:2]))
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(net(x)[0].sum(), x)
        assert gradient[0].abs().max() > 0
        assert gradient[1:].abs().max() == 0

    def test_gradient_penalty(self):
        """Gradients of gradients reach all parameters but the last bias, and are right."""
        net = critic(num_feat=1, num_in_ch=1).double()
        x = image(16, 16, n=2, channels=1).double().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        (gradient.flatten(1).norm(dim=1) - 1).square().mean().backward()
        missing = [name for name, parameter in net.named_parameters() if parameter.grad is None]
        assert all(name.endswith("bias") for name in missing)
        assert all((net.get_submodule(name).weight.grad != 0).any() for name in NAMES)
        assert torch.autograd.gradcheck(net, x, fast_mode=True)
        assert torch.autograd.gradgradcheck(net, x, fast_mode=True)

    def test_images_differ_from_the_start(self):
        values = critic(num_feat=16)(image(64, 64, n=4))
        assert (values.std() / values.mean().abs()).item() > 1e-2

    def test_taps_by_name_and_number(self):
        net = critic()
        assert net.resolve_taps((5, "conv3_1")) == ("conv2_0", "conv3_1")
        values, features = net(image(), taps=(8, "conv2_0"))
        assert list(features) == ["conv3_1", "conv2_0"]
        torch.testing.assert_close(values, net(image()))
        with pytest.raises(ValueError, match="no convolution 9, only 1 to 8"):
            net(image(), taps=(9,))

    def test_exception(self):
        for shape in [(1, 3, 24, 32), (1, 3, 32, 24), (1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 16)]:
            with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\), H and W multiples of 16, got"):
                critic()(torch.zeros(shape))
