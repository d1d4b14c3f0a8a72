"""The weights of VGG19: the file that is taken, and files that cannot serve."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gramgan_plugin.checkpoints import vgg19
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.vgg19 import load_vgg19
from gramgan_plugin.errors import UserError
from tests.vgg_reference import write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of the layers up to conv2_2."""
    folder = tmp_path_factory.mktemp("vgg")
    write_weights(folder / "shallow.pth", last="conv2_2")
    return folder


def test_what_is_loaded(weights: Path) -> None:
    state = torch.load(weights / "shallow.pth", weights_only=True)
    loaded = load_vgg19(weights / "shallow.pth", ["conv1_1", "relu2_1"])
    assert list(loaded) == [f"features.{place}.{kind}" for place in (0, 2, 5) for kind in ("weight", "bias")]
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


@pytest.mark.parametrize("layers", [[], ["conv9_1"], ["conv1_1", "features.0"]])
def test_layers_that_there_are_not(weights: Path, layers: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^layers: expected layers of VGG19"):
        load_vgg19(weights / "shallow.pth", layers)


class TestWeights:
    def test_missing_layer(self, weights):
        with pytest.raises(UserError, match=r"shallow.pth: no features\.10\.weight \(conv3_1\)"):
            load_vgg19(weights / "shallow.pth", ["conv4_4"])

    def test_missing_file(self, tmp_path):
        with pytest.raises(UserError, match=r"none.pth: cannot be read"):
            load_vgg19(str(tmp_path / "none.pth"), ["conv4_4"])

    @pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut"])
    def test_damaged_file(self, tmp_path, content):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read") as caught:
            load_vgg19(str(tmp_path / "bad.pth"), ["conv4_4"])
        assert len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize("content", [{"features.0.weight": torch.zeros(64, 1, 3, 3)}, torch.zeros(3), {}])
    def test_other_content(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match=r"other.pth: (no )?features\.0\.weight"):
            load_vgg19(str(tmp_path / "other.pth"), ["conv4_4"])

    def test_no_code_is_run(self, tmp_path):
        torch.save({"features.0.weight": Path("x")}, tmp_path / "code.pth")  # any class that is not a tensor
        with pytest.raises(UserError, match="cannot be read"):
            load_vgg19(str(tmp_path / "code.pth"), ["conv4_4"])

    @pytest.mark.parametrize("value", [float("nan"), float("-inf")])
    def test_values_that_are_not_finite(self, weights, tmp_path, value):
        state = torch.load(weights / "shallow.pth", weights_only=True)
        state["features.5.bias"][3] = value
        torch.save(state, tmp_path / "nan.pth")
        with pytest.raises(UserError, match=r"nan\.pth: features\.5\.bias .* not finite"):
            load_vgg19(str(tmp_path / "nan.pth"), ["conv2_2"])
        load_vgg19(str(tmp_path / "nan.pth"), ["conv1_2"])

    def test_upstream_place(self, weights, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(vgg19, "ensure", lambda weights: pytest.fail("went to the network"))
        place = tmp_path / "experiments/pretrained_models"
        place.mkdir(parents=True)
        (place / "vgg19-dcbb9e9d.pth").write_bytes((weights / "shallow.pth").read_bytes())
        assert "features.7.bias" in load_vgg19(None, ["conv2_2"])

    def test_torch_hubs_place(self, weights, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(vgg19, "ensure", lambda weights: pytest.fail("went to the network"))
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        (tmp_path / "hub/checkpoints").mkdir(parents=True)
        shutil.copy(weights / "shallow.pth", tmp_path / "hub/checkpoints/vgg19-dcbb9e9d.pth")
        assert "features.7.bias" in load_vgg19(None, ["conv2_2"])

    @pytest.fixture
    def published(self, weights, server, tmp_path, monkeypatch):
        """A local server instead of torchvision's, with a smaller file."""
        content = (weights / "shallow.pth").read_bytes()
        known = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        url = server.put("/vgg19-dcbb9e9d.pth", content)
        monkeypatch.setitem(WEIGHTS, "vgg19", replace(WEIGHTS["vgg19"], url=url, **known))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        monkeypatch.setenv("GRAMGAN_WEIGHTS", str(tmp_path / "ours"))
        return url

    def test_fetched_once(self, published, server, tmp_path):
        for _ in range(2):
            assert "features.7.bias" in load_vgg19(None, ["conv2_2"])
        assert len(server.log) == 1
        with (tmp_path / "ours/vgg19-dcbb9e9d.pth").open("rb+") as file:
            file.seek(100_000)
            file.write(b"damage")
        with pytest.raises(UserError, match=r"SHA-256 .*`basicsr weights fetch vgg19`"):
            load_vgg19(None, ["conv2_2"])

    def test_not_available(self, published, server, tmp_path):
        server.put("/vgg19-dcbb9e9d.pth", b"", "404")
        with pytest.raises(UserError) as caught:
            load_vgg19(None, ["conv4_4"])
        message = str(caught.value)
        assert f"{published} cannot be downloaded" in message
        assert "404 Not Found" in message
        assert str(tmp_path / "ours") in message
        assert "experiments/pretrained_models/vgg19-dcbb9e9d.pth" in message
        assert len(message.splitlines()) == 1
