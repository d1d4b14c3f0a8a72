import pytest
import torch
from torch.nn import functional as F

from gramgan_plugin.archs import GramGANDiscriminator, GramGANRealPhotoDiscriminator
from gramgan_plugin.models.basicsr_fixes import HostFixes
from gramgan_plugin.models.build import build_model


def image(height: int, width: int | None = None, n: int = 2, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, height, width or height, generator=generator)


def discriminator(num_feat: int = 4, **options) -> GramGANRealPhotoDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return GramGANRealPhotoDiscriminator(num_feat=num_feat, **options)


def by_hand(net, x):
    """All features and the logits, layer by layer, from the state dict alone."""
    weights, features = net.state_dict(), {}
    for stage in range(6):
        for part, (stride, kernel) in enumerate([(1, 3), (2, 4)]):
            name = f"conv{stage}_{part}"
            if name == "conv5_1":
                break
            assert weights[f"{name}.weight"].shape[2:] == (kernel, kernel)
            x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding=1)
            x = torch.where(x > 0, x, 0.2 * x)
            features[name] = x
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    x = F.linear(x, weights["linear1.weight"], weights["linear1.bias"])
    x = torch.where(x > 0, x, 0.2 * x)
    return F.linear(x, weights["linear2.weight"], weights["linear2.bias"]), features


class TestGramGANRealPhotoDiscriminator:
    def test_smoke(self):
        net = discriminator()
        logits = net(image(64))
        assert logits.shape == (2, 1)
        assert logits.isfinite().all()

    @pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (61, 61), (75, 130), (128, 128), (192, 100)])
    def test_cardinality(self, height, width):
        net = discriminator()
        logits, features = net(image(height, width), taps=net.tap_names)
        expected, widths = {}, [4, 8, 16, 32, 32, 32]
        for stage, channels in enumerate(widths):
            expected[f"conv{stage}_0"] = (2, channels, height >> stage, width >> stage)
            if stage < 5:
                expected[f"conv{stage}_1"] = (2, channels, height >> (stage + 1), width >> (stage + 1))
        assert {tap: tuple(value.shape) for tap, value in features.items()} == expected
        assert logits.shape == (2, 1)

    def test_layers(self):
        net = GramGANRealPhotoDiscriminator()
        convs = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
        assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [
            (3, 64, 3, 1), (64, 64, 4, 2),
            (64, 128, 3, 1), (128, 128, 4, 2),
            (128, 256, 3, 1), (256, 256, 4, 2),
            (256, 512, 3, 1), (512, 512, 4, 2),
            (512, 512, 3, 1), (512, 512, 4, 2),
            (512, 512, 3, 1),
        ]  # fmt: skip
        assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in net.modules())
        assert all(conv.bias is not None for conv in convs)
        assert list(net.buffers()) == []
        assert net.linear1.in_features == 512

    @pytest.mark.parametrize("size", [(64, 64), (45, 83)])
    def test_feature(self, size):
        net = discriminator()
        logits, features = net(image(*size), taps=net.tap_names)
        expected, its_features = by_hand(net, image(*size))
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(features, its_features)

    def test_features_differ_from_the_start(self):
        """Weights start so that a layer keeps the scale: two images' features differ about as much as the images."""
        net = discriminator(num_feat=32)
        for name in ("conv1_0", "conv4_1"):
            weight = getattr(net, name).weight.detach()
            expected = (2 / (1.04 * weight[0].numel())) ** 0.5
            assert float(weight.std()) == pytest.approx(expected, rel=0.05)
        x = image(64)
        features = net(x, taps=(5, 11))[1]
        for value in features.values():
            assert 0.1 < (value[0] - value[1]).square().mean().sqrt() / (x[0] - x[1]).square().mean().sqrt() < 10
        assert features["conv5_0"].isfinite().all()

    def test_each_image_is_judged_alone(self):
        """What BatchNorm would not give: in train mode too, an image's logit does not depend on its neighbours."""
        net = discriminator().train()
        torch.testing.assert_close(net(image(40, n=3))[1:2], net(image(40, n=3)[1:2]))

    def test_taps_by_name_and_number(self):
        net = discriminator()
        assert net.resolve_taps((5, 11)) == ("conv2_0", "conv5_0")
        assert net.resolve_taps(("conv5_0", 5)) == ("conv5_0", "conv2_0")
        assert GramGANDiscriminator(num_feat=1).resolve_taps((5, 11)) == net.resolve_taps((5, 11))
        logits, features = net(image(40), taps=(11, "conv2_0"))
        assert list(features) == ["conv5_0", "conv2_0"]
        torch.testing.assert_close(logits, net(image(40)))
        assert net(image(40), taps=())[1] == {}

    def test_gradient(self):
        net = discriminator()
        x = image(40, 35).requires_grad_()
        logits, features = net(x, taps=(5, 11))
        (sum(value.square().mean() for value in features.values()) + logits.mean()).backward()
        assert (x.grad.abs().sum(dim=1) > 0).all(), "no pixel of an odd size is left out"
        assert all(parameter.grad is not None for parameter in net.parameters())

    def test_gradcheck(self):
        net = discriminator(num_feat=1, num_in_ch=1).double()
        x = image(33, 32, n=1, channels=1).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: net(x), x, fast_mode=True)
        assert torch.autograd.gradcheck(lambda x: tuple(net(x, taps=(5, 11))[1].values()), x, fast_mode=True)

    def test_state_dict(self):
        net, other = discriminator(), GramGANRealPhotoDiscriminator(num_feat=4)
        state = net.state_dict()
        names = [f"conv{stage}_{part}" for stage in range(5) for part in range(2)] + ["conv5_0", "linear1", "linear2"]
        assert list(state) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
        assert not torch.equal(net(image(50)), other(image(50)))
        other.load_state_dict(state, strict=True)
        torch.testing.assert_close(other(image(50)), net(image(50)), rtol=0, atol=0)

    def test_channels_last(self):
        net = discriminator()
        logits, features = net(image(64, 45), taps=(5, 11))
        last = net.to(memory_format=torch.channels_last)
        logits_last, features_last = last(image(64, 45).to(memory_format=torch.channels_last), taps=(5, 11))
        torch.testing.assert_close(logits_last, logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features_last, features, rtol=1e-4, atol=1e-5)

    def test_dtype(self):
        net = discriminator()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = net(image(64))
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), net(image(64)), rtol=0.05, atol=0.01)
        assert net.double()(image(64).double()).dtype == torch.float64

    @pytest.mark.parametrize("channels", [1, 4])
    def test_channels(self, channels):
        assert discriminator(num_in_ch=channels)(image(32, channels=channels)).shape == (2, 1)

    def test_exception(self):
        net = discriminator()
        for shape in [(1, 3, 31, 64), (1, 3, 64, 31), (1, 1, 64, 64), (3, 64, 64)]:
            with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\), H and W at least 32"):
                net(torch.zeros(shape))
        with pytest.raises(ValueError, match="num_in_ch and num_feat must be at least 1, got 3 and 0"):
            GramGANRealPhotoDiscriminator(num_feat=0)

    @pytest.mark.parametrize("taps", [(12,), ("conv5_1",), (0,), (-1,), ("linear1",), (True,), (5.0,)])
    def test_unknown_tap(self, taps):
        with pytest.raises(ValueError, match=r"no convolution \S+, only 1 to 11: conv0_0, .*conv5_0"):
            discriminator()(image(32), taps=taps)

    def test_bad_taps(self):
        with pytest.raises(ValueError, match="expected a list"):
            discriminator().resolve_taps("conv2_0")
        with pytest.raises(ValueError, match="names a convolution twice"):
            discriminator().resolve_taps((5, "conv2_0"))

    def test_in_training(self, tiny_options, workdir):
        """A step of G and D through the model, at a crop size that is no power of two, in channels-last layout."""
        from gramgan_plugin.config import check_options, resolve_options

        tiny_options["datasets"]["train"]["gt_size"] = 72
        tiny_options["network_d"] = {"type": "GramGANRealPhotoDiscriminator", "num_in_ch": 3, "num_feat": 2}
        tiny_options["train"] |= {"channels_last": True}
        tiny_options["train"]["disc_perceptual_opt"] = {
            "type": "DiscPerceptualLoss",
            "taps": [5, 11],
            "criterion": "l1",
        }
        assert check_options(tiny_options) == []
        model = build_model(resolve_options(tiny_options, is_train=True))
        assert isinstance(model, HostFixes)
        assert model.net_d.conv1_0.weight.is_contiguous(memory_format=torch.channels_last)
        before = {name: value.clone() for name, value in model.net_d.state_dict().items()}
        model.feed_data({"lq": image(18), "gt": image(72, seed=1)})
        model.optimize_parameters(1)
        model.optimize_parameters(2)
        log = model.get_current_log()
        assert {"l_g_dp", "l_g_gan", "l_d_real"} <= set(log)
        assert log["l_g_dp"] > 0
        unchanged = {name for name, value in model.net_d.state_dict().items() if torch.equal(value, before[name])}
        assert unchanged <= {"linear2.bias"}, "a relativistic loss does not see a constant"
