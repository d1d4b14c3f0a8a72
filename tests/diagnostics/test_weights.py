import pytest
import torch

from gramgan_plugin.checkpoints import vgg19
from gramgan_plugin.diagnostics import weights
from gramgan_plugin.diagnostics.diagnosis import Level


@pytest.fixture
def cache(workdir, monkeypatch):
    folder = workdir / "hub/checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(weights, "hub_folder", lambda: folder)
    return folder


def _save(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}, path)


class TestVGG19:
    def test_the_places_are_those_of_the_loss(self):
        """They stand here again, since that module imports torch, which may be what is broken."""
        assert vgg19.UPSTREAM_WEIGHTS == weights.UPSTREAM_PLACE

    def test_to_be_fetched(self, cache):
        (finding,) = weights.vgg19()
        assert finding.level == Level.OK
        assert "will be downloaded from https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in finding.fact
        assert str(weights.UPSTREAM_PLACE) in finding.fact
        assert str(weights.cache_folder()) in finding.fact

    def test_our_cache(self, cache, monkeypatch):
        monkeypatch.setenv("GRAMGAN_WEIGHTS", str(cache.parent / "ours"))
        _save(cache.parent / "ours" / weights.VGG19.file)
        (finding,) = weights.vgg19()
        assert finding.fact.startswith(str(cache.parent / "ours"))

    def test_upstreams_place_before_the_cache(self, cache):
        _save(cache / weights.VGG19.file)
        (finding,) = weights.vgg19()
        assert str(cache) in finding.fact
        _save(weights.UPSTREAM_PLACE)
        (finding,) = weights.vgg19()
        assert finding.fact.startswith(str(weights.UPSTREAM_PLACE))
        assert finding.level == Level.OK
        assert "not torchvision's file" in finding.fact

    def test_torchvisions_file(self, cache, monkeypatch):
        _save(cache / weights.VGG19.file)
        monkeypatch.setattr(weights, "file_sha256", lambda file: weights.VGG19.sha256)
        (finding,) = weights.vgg19()
        assert finding.fact.endswith("torchvision's")

    @pytest.mark.parametrize(
        ("content", "words"),
        [(b"half a file", "a text file, not a checkpoint"), (None, "no features.0.weight")],
        ids=["broken", "other"],
    )
    def test_a_file_that_does_not_do(self, cache, content, words):
        file = cache / weights.VGG19.file
        torch.save({"params": {}}, file) if content is None else file.write_bytes(content)
        (finding,) = weights.vgg19()
        assert finding.level == Level.PROBLEM
        assert words in finding.fact
        assert finding.cure == "delete it; it is downloaded again"


class TestNamedWeights:
    def test_feature(self, workdir):
        _save(workdir / "vgg.pth")
        (workdir / "g.pth").write_bytes(bytes(2_500_000))
        options = {
            "path": {"pretrain_network_g": "g.pth", "pretrain_network_d": "none.pth", "resume_state": None},
            "train": {"perceptual_opt": {"vgg_weights": "vgg.pth"}},
        }
        first, second = weights.named_weights(options)
        assert (first.topic, first.fact) == ("path.pretrain_network_g", "g.pth, 2.5 MB")
        assert (second.topic, second.level) == ("train.perceptual_opt.vgg_weights", Level.OK)
        assert list(weights.named_weights({})) == []
