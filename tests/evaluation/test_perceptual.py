"""LPIPS and DISTS against the formulas, and against torchmetrics' networks, over random backbones."""

import hashlib
from pathlib import Path

import pytest
import skimage.data
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.perceptual import Dists, Lpips

SHARED = Path(torchmetrics.__file__).parent / "functional/image"
TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}  # after these layers LPIPS compares


def features_of(name: str) -> torch.nn.Sequential:
    import torchvision

    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None).features


def random_backbone(name: str, path: Path) -> Path:
    """Write weights that keep the size of activations, as trained ones do."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in features_of(name).state_dict().items():
        scale = (2 / value[0].numel()) ** 0.5 if key.endswith("weight") else 0.05
        state[f"features.{key}"] = torch.randn(value.shape, generator=generator) * scale
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_backbone("alexnet", tmp_path_factory.mktemp("alexnet") / "alexnet.pth")


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_backbone("vgg16", tmp_path_factory.mktemp("vgg16") / "vgg16.pth")


@pytest.fixture
def backbones(alexnet: Path, vgg16: Path) -> dict[str, Path]:
    return {"alex": alexnet, "vgg": vgg16}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Downloads fail, and torch.hub's folder is empty."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Two photos, and the same blurred."""
    gt = torch.stack([torch.from_numpy(photo[60:132, 100:180]) for photo in photos()]).permute(0, 3, 1, 2)
    return F.avg_pool2d(gt.float(), 3, 1, 1).byte(), gt


def photos() -> tuple:
    return skimage.data.astronaut(), skimage.data.chelsea()


def activations(image: Tensor, name: str, path: Path) -> list[Tensor]:
    layers = features_of(name)
    layers.load_state_dict(
        {key.removeprefix("features."): value for key, value in torch.load(path).items()}, assign=True
    )
    outputs = []
    with torch.no_grad():
        for layer in layers:
            image = layer(image.clone())
            outputs.append(image)
    return outputs


def lpips_by_hand(image: Tensor, net: str, name: str, path: Path, other: Tensor) -> Tensor:
    """Squared differences of unit feature vectors, weighted by channel, averaged over pixels, summed over layers."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    weights = list(torch.load(SHARED / f"lpips_models/{net}.pth", map_location="cpu").values())
    sides = [
        activations(((x / 127.5 - 1) - shift[:, None, None]) / scale[:, None, None], name, path) for x in (image, other)
    ]
    total = torch.zeros(len(image))
    for tap, weight in zip(TAPS[net], weights, strict=True):
        a, b = (F.normalize(side[tap], dim=1) for side in sides)
        total += ((a - b) ** 2 * weight).sum(dim=1).mean(dim=(1, 2))
    return total


class TestLpips:
    @pytest.mark.parametrize("net", ["alex", "vgg"])
    def test_the_formula(self, net: str, backbones: dict[str, Path], pair: tuple[Tensor, Tensor]) -> None:
        sr, gt = pair
        metric = Lpips(net, backbones[net])
        value = metric(sr, gt, crop=4)
        expected = lpips_by_hand(
            sr[..., 4:-4, 4:-4].float(), net, metric.backbone, backbones[net], gt[..., 4:-4, 4:-4].float()
        )
        assert value.dtype == torch.float64
        assert torch.allclose(value, expected.double(), rtol=1e-4)
        assert (value > 0.001).all()
        assert metric(gt, gt).tolist() == [0, 0]

    def test_torchmetrics(self, alexnet: Path, pair: tuple[Tensor, Tensor]) -> None:
        from torchmetrics.functional.image.lpips import _LPIPS

        network = _LPIPS(net="alex", pnet_rand=True)
        by_place = {key.split(".", 1)[1]: value for key, value in torch.load(alexnet).items()}
        state = network.net.state_dict()
        network.net.load_state_dict({key: by_place[key.split(".", 1)[1]] for key in state})
        sr, gt = pair
        expected = network(sr / 255, gt / 255, normalize=True).flatten().double()
        assert torch.allclose(Lpips("alex", alexnet)(sr, gt), expected, rtol=1e-5)

    def test_a_batch_is_its_images(self, alexnet: Path, pair: tuple[Tensor, Tensor]) -> None:
        metric = Lpips("alex", alexnet)
        alone = torch.cat([metric(sr[None], gt[None]) for sr, gt in zip(*pair, strict=True)])
        assert torch.allclose(metric(*pair), alone, rtol=1e-5)

    def test_says_which_backbone(self, alexnet: Path) -> None:
        metric = Lpips("alex", alexnet)
        assert metric.backbone_file == alexnet
        assert metric.backbone_sha256 == hashlib.sha256(alexnet.read_bytes()).hexdigest()

    def test_other_net(self) -> None:
        with pytest.raises(ValueError, match="alex, vgg, got 'squeeze'"):
            Lpips("squeeze")

    def test_random_numbers_are_left_alone(self, alexnet: Path) -> None:
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        Lpips("alex", alexnet)
        assert torch.equal(torch.rand(3), expected)

    def test_too_small(self, alexnet: Path) -> None:
        images = torch.zeros(1, 3, 38, 64, dtype=torch.uint8)
        metric = Lpips("alex", alexnet)
        metric(images, images, crop=3)
        with pytest.raises(ValueError, match=r"at least 31$"):
            metric(images, images, crop=4)


class TestDists:
    def test_torchmetrics(self, vgg16: Path, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
        from torchmetrics.functional.image import dists

        class Stub:
            features = features_of("vgg16").to_empty(device="cpu")

        monkeypatch.setattr(dists, "vgg16", lambda weights: Stub)
        network = dists.DISTSNetwork()
        by_place = {key.removeprefix("features."): value for key, value in torch.load(vgg16).items()}
        for stage in (network.stage1, network.stage2, network.stage3, network.stage4, network.stage5):
            for place, layer in stage.named_children():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.load_state_dict({kind: by_place[f"{place}.{kind}"] for kind in ("weight", "bias")})
        monkeypatch.undo()
        monkeypatch.setattr(torch.hub, "download_url_to_file", None)
        sr, gt = pair
        value = Dists(vgg16)(sr, gt)
        assert torch.allclose(value, network(sr / 255, gt / 255).double(), rtol=1e-5)
        assert (value > 0.001).all()

    def test_one_image(self, vgg16: Path, pair: tuple[Tensor, Tensor]) -> None:
        value = Dists(vgg16)(pair[1][:1], pair[1][:1])
        assert value.shape == (1,)
        assert abs(value.item()) < 1e-5


class TestMissing:
    @pytest.mark.parametrize(("build", "name"), [(Lpips, "alexnet"), (lambda: Lpips("vgg"), "vgg16"), (Dists, "vgg16")])
    def test_one_line_names_the_command(self, build, name: str) -> None:
        with pytest.raises(UserError, match=rf"^{name}: .*`basicsr weights fetch {name}`.*$"):
            build()

    def test_a_damaged_public_file(self, weights_folder: Path, alexnet: Path, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GRAMGAN_WEIGHTS", str(tmp_path))
        (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(alexnet.read_bytes())
        with pytest.raises(UserError, match=r"^alexnet: .* bytes instead of .*fetch alexnet`"):
            Lpips("alex")

    def test_another_network(self, alexnet: Path) -> None:
        with pytest.raises(UserError, match=r"vgg16: no features\.0\.weight of shape \(64, 3, 3, 3\)"):
            Dists(alexnet)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such file"):
            Lpips("alex", tmp_path / "none.pth")

    def test_non_finite(self, alexnet: Path, tmp_path: Path) -> None:
        state = torch.load(alexnet)
        state["features.3.bias"][1] = float("nan")
        torch.save(state, tmp_path / "nan.pth")
        with pytest.raises(UserError, match=r"nan\.pth: features\.3\.bias .* not finite"):
            Lpips("alex", tmp_path / "nan.pth")
