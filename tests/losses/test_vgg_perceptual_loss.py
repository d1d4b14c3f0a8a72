from pathlib import Path

import pytest
import skimage.data
import torch
from torchvision.models import vgg

from gramgan_plugin.errors import UserError
from gramgan_plugin.losses import VGGPerceptualLoss
from gramgan_plugin.losses.vgg_perceptual_loss import LAYERS

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


class TestVGGPerceptualLoss:
    def test_smoke(self, weights):
        loss = VGGPerceptualLoss(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth"))
        assert loss(*pair()).shape == ()
        assert float(loss(pair()[1], pair()[1])) == 0

    @pytest.mark.parametrize(
        ("layer_weights", "places"),
        [
            ("gramgan", {7: 1.0, 21: 0.1, 25: 0.01}),
            ("beby", {16: 1 / 8, 25: 1 / 4, 34: 1 / 2}),
            ({"conv1_1": 2.0}, {0: 2.0}),
            ({"relu5_4": 1.0, "conv1_2": 0.5}, {35: 1.0, 2: 0.5}),
        ],
        ids=["gramgan", "beby", "conv1_1", "relu5_4"],
    )
    def test_feature(self, layer_weights, places, weights, torchvision_features):
        loss = VGGPerceptualLoss(0.5, layer_weights, vgg_weights=str(weights / "full.pth"))
        sr, gt = pair()
        with torch.no_grad():
            expected = 0.5 * expected_loss(torchvision_features, places, sr, gt)
            torch.testing.assert_close(loss(sr, gt), expected)
        assert len(loss.features) == max(places) + 1  # no deeper than needed

    def test_in_place_but_where_it_would_spoil_what_is_read(self, weights):
        loss = VGGPerceptualLoss(layer_weights={"conv1_2": 1, "relu2_1": 1}, vgg_weights=str(weights / "full.pth"))
        assert [layer.inplace for layer in loss.features if isinstance(layer, torch.nn.ReLU)] == [True, False, True]

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
            mse = VGGPerceptualLoss(criterion="mse", **common)(sr, gt)
            torch.testing.assert_close(mse, expected_loss(torchvision_features, {7: 1.0}, sr, gt, "mse"))
            plain = VGGPerceptualLoss(use_input_norm=False, **common)(sr, gt)
            raw = (torchvision_features[:8](sr) - torchvision_features[:8](gt)).abs().mean()
            torch.testing.assert_close(plain, raw)
            ranged = VGGPerceptualLoss(range_norm=True, **common)(sr * 2 - 1, gt * 2 - 1)
            torch.testing.assert_close(ranged, expected_loss(torchvision_features, {7: 1.0}, sr, gt))

    def test_frozen(self, weights):
        loss = VGGPerceptualLoss(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth")).train()
        assert not any(module.training for module in loss.modules())
        assert not any(parameter.requires_grad for parameter in loss.parameters())
        assert sum(isinstance(module, torch.nn.Conv2d) for module in loss.modules()) == 4
        assert {name.split(".")[0] for name in loss.state_dict()} == {"features"}

    def test_gradient(self, weights):
        loss = VGGPerceptualLoss(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth"))
        sr, gt = (x.requires_grad_() for x in pair())
        loss(sr, gt).backward()
        assert gt.grad is None
        assert (sr.grad.abs().sum(dim=1) > 0).all()

    def test_gradcheck(self, weights):
        loss = VGGPerceptualLoss(
            layer_weights={"conv1_1": 1.0}, criterion="mse", vgg_weights=str(weights / "shallow.pth")
        ).double()
        sr, gt = (x[:, :, :4, :4].double() for x in pair())
        assert torch.autograd.gradcheck(lambda x: loss(x, gt), sr.requires_grad_())

    def test_dtype(self, weights):
        loss = VGGPerceptualLoss(layer_weights={"conv2_2": 1.0}, vgg_weights=str(weights / "shallow.pth"))
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
            got = VGGPerceptualLoss(layer_weights=layer_weights, vgg_weights=str(path))(sr, gt)
            torch.testing.assert_close(got, expected_loss(features, {7: 1.0, 10: 0.5}, sr, gt))

    def test_exception(self, weights):
        path = str(weights / "shallow.pth")
        loss = VGGPerceptualLoss(layer_weights={"conv2_2": 1.0}, vgg_weights=path)
        for shapes in [((1, 1, 8, 8), (1, 1, 8, 8)), ((1, 3, 8, 8), (1, 3, 8, 9)), ((3, 8, 8), (3, 8, 8))]:
            with pytest.raises(ValueError, match=r"one shape \(N, 3, H, W\)"):
                loss(*(torch.zeros(shape) for shape in shapes))
        with pytest.raises(ValueError, match=r"expected layers of VGG19, .* got conv6_1"):
            VGGPerceptualLoss(layer_weights={"conv6_1": 1.0}, vgg_weights=path)
        with pytest.raises(ValueError, match="layer_weights"):
            VGGPerceptualLoss(layer_weights={}, vgg_weights=path)
        with pytest.raises(ValueError, match="expected gramgan, beby"):
            VGGPerceptualLoss(layer_weights="esrgan", vgg_weights=path)
        with pytest.raises(ValueError, match="criterion"):
            VGGPerceptualLoss(criterion="l2", vgg_weights=path)


class TestWeights:
    def test_missing_layer(self, weights):
        with pytest.raises(UserError, match=r"shallow.pth: no features\.10\.weight \(conv3_1\); give VGG19 weights"):
            VGGPerceptualLoss(vgg_weights=str(weights / "shallow.pth"))

    def test_missing_file(self, tmp_path):
        with pytest.raises(UserError, match=r"none.pth: cannot be read as VGG19 weights"):
            VGGPerceptualLoss(vgg_weights=str(tmp_path / "none.pth"))

    @pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut"])
    def test_damaged_file(self, tmp_path, content):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read") as caught:
            VGGPerceptualLoss(vgg_weights=str(tmp_path / "bad.pth"))
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("content", [{"features.0.weight": torch.zeros(64, 1, 3, 3)}, torch.zeros(3), {}])
    def test_other_content(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match=r"other.pth: (no )?features\.0\.weight"):
            VGGPerceptualLoss(vgg_weights=str(tmp_path / "other.pth"))

    def test_no_code_is_run(self, tmp_path):
        torch.save({"features.0.weight": Path("x")}, tmp_path / "code.pth")  # any class that is not a tensor
        with pytest.raises(UserError, match="cannot be read"):
            VGGPerceptualLoss(vgg_weights=str(tmp_path / "code.pth"))

    @pytest.mark.parametrize("value", [float("nan"), float("-inf")])
    def test_values_that_are_not_finite(self, weights, tmp_path, value):
        state = torch.load(weights / "shallow.pth", weights_only=True)
        state["features.5.bias"][3] = value
        torch.save(state, tmp_path / "nan.pth")
        with pytest.raises(UserError, match=r"nan\.pth: features\.5\.bias holds values that are not finite"):
            VGGPerceptualLoss(layer_weights={"conv2_2": 1.0}, vgg_weights=str(tmp_path / "nan.pth"))
        VGGPerceptualLoss(layer_weights={"conv1_2": 1.0}, vgg_weights=str(tmp_path / "nan.pth"))

    def test_upstream_place(self, weights, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("went to the network"))
        place = tmp_path / "experiments/pretrained_models"
        place.mkdir(parents=True)
        (place / "vgg19-dcbb9e9d.pth").write_bytes((weights / "shallow.pth").read_bytes())
        assert VGGPerceptualLoss(layer_weights={"conv2_2": 1.0})(*pair()) > 0

    def test_fetched_once(self, weights, tmp_path, monkeypatch):
        asked = []

        def fetch(url, file, hash_prefix):
            asked.append((url, hash_prefix))
            Path(file).write_bytes((weights / "shallow.pth").read_bytes())

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
        for _ in range(2):
            assert VGGPerceptualLoss(layer_weights={"conv2_2": 1.0})(*pair()) > 0
        assert asked == [("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "dcbb9e9d")]

    def test_no_network(self, tmp_path, monkeypatch):
        def fetch(url, file, hash_prefix):
            raise OSError("no route to\x1b[2J host")

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
        with pytest.raises(UserError) as caught:
            VGGPerceptualLoss()
        message = str(caught.value)
        assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in message
        assert "no route to\\x1b[2J host" in message
        assert "experiments/pretrained_models/vgg19-dcbb9e9d.pth" in message


def _expand(config):
    """torchvision's layer list: what each index of ``features`` is."""
    kinds = []
    for entry in config:
        kinds += ["pool"] if entry == "M" else ["conv", "relu"]
    return kinds
