import pytest
import torch
from basicsr.archs.discriminator_arch import UNetDiscriminatorSN

from gramgan_plugin.archs import UNetDiscriminatorSNTaps


def image(height: int = 24, width: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def both(skip_connection: bool = True) -> tuple[UNetDiscriminatorSNTaps, UNetDiscriminatorSN]:
    """Ours and BasicSR's, with the weights of BasicSR's."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = UNetDiscriminatorSN(3, 4, skip_connection)
        ours = UNetDiscriminatorSNTaps(3, 4, skip_connection)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


class TestUNetDiscriminatorSNTaps:
    @pytest.mark.parametrize("skip_connection", [True, False])
    def test_equals_basicsr(self, skip_connection):
        ours, theirs = both(skip_connection)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert {"conv0.weight", "conv1.weight_orig", "conv8.weight_u", "conv9.bias"} <= ours.state_dict().keys()
        for step in range(3):  # in training mode, each estimates the largest singular value further
            torch.testing.assert_close(ours(image(seed=step)), theirs(image(seed=step)), rtol=0, atol=0)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(ours.eval()(image()), theirs.eval()(image()), rtol=0, atol=0)

    def test_its_checkpoint_fits_basicsr(self):
        theirs = UNetDiscriminatorSN(3, 4)
        theirs.load_state_dict(both()[0].state_dict(), strict=True)

    def test_same_number_of_parameters(self):
        count = [sum(p.numel() for p in cls(3).parameters()) for cls in (UNetDiscriminatorSNTaps, UNetDiscriminatorSN)]
        assert count[0] == count[1] == 4_376_897

    def test_same_gradients(self):
        ours, theirs = both()
        for net in (ours, theirs):
            net(image()).square().mean().backward()
        expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
        torch.testing.assert_close({name: p.grad for name, p in ours.named_parameters()}, expected)

    def test_taps_are_basicsr_s_activations(self):
        ours, theirs = both()
        ours.eval(), theirs.eval()
        seen = {}
        for name in ours.tap_names:
            theirs.get_submodule(name).register_forward_hook(
                lambda module, inputs, result, name=name: seen.update({name: result.clone()})
            )
        logits, features = ours(image(), taps=range(1, 10))
        torch.testing.assert_close(logits, theirs(image()))
        assert list(features) == [f"conv{number}" for number in range(9)]
        for name, value in features.items():
            torch.testing.assert_close(value, torch.nn.functional.leaky_relu(seen[name], 0.2))

    def test_taps_by_name_and_number(self):
        ours = both()[0].eval()
        assert ours.resolve_taps((1, "conv8")) == ("conv0", "conv8")
        logits, features = ours(image(), taps=("conv6", 4))
        assert {name: tuple(value.shape) for name, value in features.items()} == {
            "conv6": (2, 4, 24, 32), "conv3": (2, 32, 3, 4),
        }  # fmt: skip
        torch.testing.assert_close(logits, ours(image()))
        with pytest.raises(ValueError, match=r"no convolution 'conv9', only 1 to 9: conv0, .*, conv8"):
            ours(image(), taps=("conv9",))

    def test_gradient(self):
        ours = both()[0]
        x = image().requires_grad_()
        features = ours(x, taps=("conv3", "conv8"))[1]
        sum(value.square().mean() for value in features.values()).backward()
        assert (x.grad.abs().sum(dim=1) > 0).all()

    def test_exception(self):
        for shape in [(1, 3, 20, 32), (1, 3, 32, 20), (1, 1, 32, 32), (3, 32, 32)]:
            with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\), H and W multiples of 8, got"):
                both()[0](torch.zeros(shape))
