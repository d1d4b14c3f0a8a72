from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from torchvision.models import vgg

from gramgan_plugin.archs.vgg19_arch import LAYERS
from gramgan_plugin.building.resources import open_resources
from gramgan_plugin.losses import VGGPerceptualLoss

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def torchvision_features():
    """torchvision's VGG19 features with random weights; in-place ReLUs made ordinary ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = vgg.make_layers(vgg.cfgs["E"], batch_norm=False).eval()
    for layer in features:
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = False
        elif isinstance(layer, torch.nn.Conv2d):  # so that deep features do not vanish
            torch.nn.init.kaiming_normal_(layer.weight, generator=torch.Generator().manual_seed(layer.in_channels))
    return features


@pytest.fixture(scope="module")
def weights(torchvision_features, tmp_path_factory):
    """A file of all layers, and one up to conv2_2."""
    folder = tmp_path_factory.mktemp("vgg")
    state = {f"features.{name}": value for name, value in torchvision_features.state_dict().items()}
    torch.save(state, folder / "full.pth")
    torch.save({name: value for name, value in state.items() if int(name.split(".")[1]) <= 7}, folder / "shallow.pth")
    return folder


def pair(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    gt = (
        torch.from_numpy(skimage.data.chelsea()[100 : 100 + size, 100 : 100 + size]).permute(2, 0, 1)[None].float()
        / 255
    )
    return (gt * 0.8 + 0.1 * torch.rand(gt.shape, generator=torch.Generator().manual_seed(0))), gt


def expected_loss(features, places, sr, gt, criterion="l1"):
    """From torchvision's layers: ``places`` maps an index into ``features`` to a weight."""
    total = 0
    for place, weight in places.items():
        d = features[: place + 1]((sr - MEAN) / STD) - features[: place + 1]((gt - MEAN) / STD)
        total += weight * (d.abs().mean() if criterion == "l1" else d.square().mean())
    return total


def build(loss_weight: float = 1.0, layer_weights: Any = "gramgan", **options: Any) -> VGGPerceptualLoss:
    """The loss of an option block: its file of weights is read."""
    options = {"layer_weights": layer_weights, **options}
    return VGGPerceptualLoss(loss_weight, **open_resources(VGGPerceptualLoss, options))


class TestVGGPerceptualLoss:
    def test_smoke(self, weights):
        loss = build(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth"))
        assert loss(*pair()).shape == ()
        assert float(loss(pair()[1], pair()[1])) == 0

    @pytest.mark.parametrize(
        ("layer_weights", "places"),
        [
            ("gramgan", {7: 1.0, 21: 0.1, 25: 0.01}),
            ("beby", {16: 1 / 8, 25: 1 / 4, 34: 1 / 2}),
            ({"conv1_1": 2.0}, {0: 2.0}),
            ({"conv1_1": 2.0, "conv5_4": None}, {0: 2.0}),
            ({"relu5_4": 1.0, "conv1_2": 0.5}, {35: 1.0, 2: 0.5}),
        ],
        ids=["gramgan", "beby", "conv1_1", "removed", "relu5_4"],
    )
    def test_feature(self, layer_weights, places, weights, torchvision_features):
        loss = build(0.5, layer_weights, vgg_weights=str(weights / "full.pth"))
        sr, gt = pair()
        with torch.no_grad():
            expected = 0.5 * expected_loss(torchvision_features, places, sr, gt)
            torch.testing.assert_close(loss(sr, gt), expected)
        assert len(loss.network.features) == max(places) + 1  # no deeper than needed

    def test_in_place_but_where_it_would_spoil_what_is_read(self, weights):
        loss = build(layer_weights={"conv1_2": 1, "relu2_1": 1}, vgg_weights=str(weights / "full.pth"))
        assert [layer.inplace for layer in loss.network.features if isinstance(layer, torch.nn.ReLU)] == [
            True,
            False,
            True,
        ]

    def test_layers(self):
        # Against torchvision's own list of layers; every convolution has its ReLU behind it.
        convs = [place for place, kind in enumerate(_expand(vgg.cfgs["E"])) if kind == "conv"]
        assert [LAYERS[name] for name in LAYERS if name.startswith("conv")] == convs
        assert [LAYERS[name] for name in LAYERS if name.startswith("relu")] == [place + 1 for place in convs]
        assert LAYERS["conv5_4"] == 34

    def test_options(self, weights, torchvision_features):
        sr, gt = pair()
        common = {"layer_weights": {"conv2_2": 1.0}, "vgg_weights": str(weights / "shallow.pth")}
        with torch.no_grad():
            mse = build(criterion="mse", **common)(sr, gt)
            torch.testing.assert_close(mse, expected_loss(torchvision_features, {7: 1.0}, sr, gt, "mse"))
            plain = build(use_input_norm=False, **common)(sr, gt)
            raw = (torchvision_features[:8](sr) - torchvision_features[:8](gt)).abs().mean()
            torch.testing.assert_close(plain, raw)
            ranged = build(range_norm=True, **common)(sr * 2 - 1, gt * 2 - 1)
            torch.testing.assert_close(ranged, expected_loss(torchvision_features, {7: 1.0}, sr, gt))

    def test_frozen(self, weights):
        loss = build(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth")).train()
        assert not any(module.training for module in loss.network.modules())
        assert not any(parameter.requires_grad for parameter in loss.parameters())
        assert sum(isinstance(module, torch.nn.Conv2d) for module in loss.modules()) == 4
        assert {name.split(".")[0] for name in loss.state_dict()} == {"network"}

    def test_gradient(self, weights):
        loss = build(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth"))
        sr, gt = (x.requires_grad_() for x in pair())
        loss(sr, gt).backward()
        assert gt.grad is None
        assert (sr.grad.abs().sum(dim=1) > 0).all()

    def test_gradcheck(self, weights):
        loss = build(layer_weights={"conv1_1": 1.0}, criterion="mse", vgg_weights=str(weights / "shallow.pth")).double()
        sr, gt = (x[:, :, :4, :4].double() for x in pair())
        assert torch.autograd.gradcheck(lambda x: loss(x, gt), sr.requires_grad_())

    def test_dtype(self, weights):
        loss = build(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth"))
        sr, gt = pair()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(sr, gt)
        assert inside.dtype == torch.float32
        torch.testing.assert_close(inside, loss(sr, gt), rtol=0.05, atol=0)
        assert loss.double()(sr.double(), gt.double()).dtype == torch.float64

    def test_shared_weights(self):
        path = SHARED / "weights" / "vgg19_features_to_conv3_1.pth"
        if not path.is_file():
            pytest.skip(f"no trained VGG19 weights at {path.name}")
        state = torch.load(path, weights_only=True)
        features = vgg.make_layers(vgg.cfgs["E"], batch_norm=False)[:11]
        features.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
        for layer in features:
            if isinstance(layer, torch.nn.ReLU):
                layer.inplace = False
        sr, gt = pair()
        layer_weights = {"conv2_2": 1.0, "conv3_1": 0.5}
        with torch.no_grad():
            got = build(layer_weights=layer_weights, vgg_weights=str(path))(sr, gt)
            torch.testing.assert_close(got, expected_loss(features, {7: 1.0, 10: 0.5}, sr, gt))

    def test_exception(self, weights):
        path = str(weights / "shallow.pth")
        loss = build(layer_weights={"conv2_2": 1.0}, vgg_weights=path)
        for shapes in [((1, 1, 8, 8), (1, 1, 8, 8)), ((1, 3, 8, 8), (1, 3, 8, 9)), ((3, 8, 8), (3, 8, 8))]:
            with pytest.raises(ValueError, match=r"one shape \(N, 3, H, W\)"):
                loss(*(torch.zeros(shape) for shape in shapes))
        with pytest.raises(ValueError, match=r"expected layers of VGG19, .* got conv6_1"):
            build(layer_weights={"conv6_1": 1.0}, vgg_weights=path)
        with pytest.raises(ValueError, match="layer_weights"):
            build(layer_weights={}, vgg_weights=path)
        with pytest.raises(ValueError, match="expected gramgan, beby"):
            build(layer_weights="esrgan", vgg_weights=path)
        with pytest.raises(ValueError, match="vgg_weights: the loss opens no file"):
            VGGPerceptualLoss(vgg_weights=path)
        with pytest.raises(ValueError, match="criterion"):
            build(layer_weights={"conv2_2": 1.0}, criterion="l2", vgg_weights=path)


def _expand(config):
    """torchvision's layer list: what each index of ``features`` is."""
    kinds = []
    for entry in config:
        kinds += ["pool"] if entry == "M" else ["conv", "relu"]
    return kinds
