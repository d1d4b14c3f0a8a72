"""The texture loss on features of VGG19, on random weights of the layers it needs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gramgan_plugin.archs.vgg19_arch import VGG19Layer
from gramgan_plugin.checkpoints.vgg19 import load_vgg19
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.functional import describe_patches, random_draw, random_theta, texture
from gramgan_plugin.patchdb.database_manifest import Definition, Features
from gramgan_plugin.patchdb.writing import write_store
from tests.losses.gram_patch_reference import opened, reference, targets_of
from tests.vgg_reference import embedding, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "vgg.pth")


def images(size: int = 16, n: int = 2, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(n, 3, size, size, generator=generator, dtype=dtype) for _ in range(2))


class TestFeatures:
    @pytest.mark.parametrize(
        ("layer", "options"),
        [
            ("conv1_2", {}),
            ("conv1_2", {"center": True, "stride": 2}),
            ("conv1_1", {"select_by": "pixel", "loss_on": "pixel", "affine_copies": 2, "affine_magnitude": 0.05}),
            ("conv1_1", {"loss_on": "pixel", "scope": "local", "radius": 1}),
            ("conv1_1", {"select_by": "pixel", "criterion": "mse", "normalize": False}),
            ("relu2_1", {"patch_size": 2, "center": True, "downsample": [2]}),
            ("conv2_1", {"patch_size": 4, "stride": 2, "downsample": []}),
        ],
        ids=str,
    )
    def test_feature(self, weights, layer, options):
        loss = opened(features={"layer": layer, "vgg_weights": str(weights)}, **options).double()
        sr, gt = images()
        theta = random_theta(2, loss.options.affine_copies, loss.options.affine_magnitude, (0,))
        expected, index = reference(sr, gt, theta, loss, embed=embedding(weights, layer))
        assert np.array_equal(targets_of(loss, sr, gt, theta).index.numpy(), index)
        np.testing.assert_allclose(float(loss(sr, gt, theta)), expected, rtol=1e-9)

    def test_many_patches_in_float32(self, weights):
        """Searched by products of 2080 dimensions: exact in terms of the Gram matrices compared."""
        loss = opened(features={"layer": "conv1_2", "vgg_weights": str(weights)}, patch_size=2)
        sr, gt = images(48, 1, torch.float32)
        theta = random_theta(1, 1, 0.003, (0,))
        selection = targets_of(loss, sr, gt, theta)
        vectors = selection.candidates.describe("gram").double()[0]  # (K, D)
        with torch.no_grad():
            x = describe_patches(loss.features(sr), 2, "gram")[0].double()
        query = ((x.float() + vectors[: len(x)].float()) / 2).double()
        assert query.shape == (576, 2080)
        squared = torch.stack([(vectors - row).square().sum(dim=1) for row in query[::16]])
        found = squared.gather(1, selection.index[0, ::16, None])[:, 0]
        assert torch.equal(found, squared.amin(dim=1))
        assert selection.kind_fractions()["original"] < 1

    @pytest.mark.parametrize(
        "options", [{"criterion": "mse"}, {"center": True, "loss_on": "pixel", "stride": 1}], ids=str
    )
    def test_gradcheck(self, weights, options):
        features = {"layer": "conv1_2", "vgg_weights": str(weights)}
        loss = opened(features=features, patch_size=2, affine_copies=0, downsample=[], **options).double()
        sr, gt = images(4, 1)
        assert torch.autograd.gradcheck(lambda x: loss(x, gt), sr.requires_grad_(), fast_mode=True)

    def test_gradient_reaches_sr_alone(self, weights):
        loss = opened(features={"layer": "conv1_2", "vgg_weights": str(weights)})
        sr, gt = (x.requires_grad_() for x in images(dtype=torch.float32))
        loss(sr, gt).backward()
        assert (sr.grad.abs().sum(dim=1) > 0).all()
        assert gt.grad is None
        assert all(p.grad is None and not p.requires_grad for p in loss.parameters())

    def test_network_runs_once_for_sr(self, weights):
        loss = opened(features={"layer": "conv1_1", "vgg_weights": str(weights)}, downsample=[])
        seen = []
        loss.features.register_forward_pre_hook(lambda module, args: seen.append(args[0].requires_grad))
        sr, gt = images(dtype=torch.float32)
        loss(sr.requires_grad_(), gt)
        assert seen == [True, False, False], "SR, GT, a warped copy"

    def test_described_a_sample_at_a_time(self, weights, monkeypatch):
        """What is held of the candidates' Gram vectors is bounded, whatever the batch."""
        monkeypatch.setattr(texture, "MOST_NUMBERS", 2000)
        loss = opened(features={"layer": "conv1_1", "vgg_weights": str(weights)})
        sr, gt = images(n=3)
        seen = []
        original = texture.nearest_several
        monkeypatch.setattr(
            texture, "nearest_several", lambda q, c, *rest: seen.append(len(c)) or original(q, c, *rest)
        )
        theta = random_theta(3, 1, 0.003, (0,))
        whole = loss.double()(sr, gt, theta)
        assert seen == [1, 1, 1]
        alone = [loss(sr[i : i + 1], gt[i : i + 1], theta[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(whole, sum(alone) / 3)

    def test_autocast(self, weights):
        """The network may run in bfloat16, as where it serves the perceptual loss; Gram matrices do not."""
        loss = opened(features={"layer": "conv1_2", "vgg_weights": str(weights)})
        sr, gt = images(dtype=torch.float32)
        theta = random_theta(2, 1, 0.003, (0,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(sr, gt, theta)
            maps = loss.features.network(sr)["conv1_2"]
        assert maps.dtype == torch.bfloat16
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(sr, gt, theta), rtol=0.1, atol=0)

    @pytest.mark.parametrize(
        ("layer", "options"),
        [
            ("conv1_1", {}),
            ("conv1_2", {"center": True, "database_use": "only"}),
            ("relu2_1", {"patch_size": 2, "top_k": 3, "downsample": []}),
        ],
        ids=str,
    )
    def test_database(self, weights, tmp_path, layer, options):
        """Against features of the database's patches computed in float64."""
        network = VGG19Layer(layer, load_vgg19(weights, [layer]))
        size = options.get("patch_size", 4)
        features = Features(layer, network.weights_sha256(), network.channels, network.reduction, network.margin)
        definition = Definition(size, center=options.get("center", False), features=features)
        sr, gt = images()
        windows = (gt * 255).round().byte().unfold(2, definition.kept_side, 1).unfold(3, definition.kept_side, 1)
        levels = windows.permute(0, 2, 3, 4, 5, 1).flatten(0, 2).contiguous().numpy()  # (N, s, s, 3)
        maps = embedding(weights, layer)(torch.from_numpy(levels).permute(0, 3, 1, 2).double() / 255)
        begin = network.margin // network.reduction
        inner = maps[..., begin : begin + size, begin : begin + size].permute(0, 2, 3, 1)  # (N, p, p, C)
        grams = describe_patches(inner.permute(0, 3, 1, 2), size, "gram", center=definition.center)[:, 0]
        write_store(tmp_path / "f", [levels], len(levels), definition, [grams.float().numpy()])
        given = {"features": {"layer": layer, "vgg_weights": str(weights)}, "database_index": "exact", **options}
        loss = opened(database=str(tmp_path / "f"), **given).double()
        theta, draw = random_theta(2, 1, loss.options.affine_magnitude, (0,)), random_draw(2, loss.patches_in(gt), (0,))
        expected, index = reference(sr, gt, theta, loss, draw, embedding(weights, layer), inner.numpy())
        assert (index >= sum(targets_of(loss, sr, gt, theta, draw).candidates.counts())).any(), "some from the database"
        assert np.mean(targets_of(loss, sr, gt, theta, draw).index.numpy() == index) == 1
        np.testing.assert_allclose(float(loss(sr, gt, theta, draw=draw)), expected, rtol=1e-6)
        with pytest.raises(ValueError, match="loss_on: a database has"):
            opened(database=str(tmp_path / "f"), **{**given, "loss_on": "pixel"})
        with pytest.raises(OptionError, match=r"features: null, but .* was built with \{layer: "):
            opened(database=str(tmp_path / "f"), **{**given, "features": None})

    def test_exception(self, weights, tmp_path):
        with pytest.raises(UserError, match=r"features\.7\.weight"):
            opened(features={"layer": "conv2_2", "vgg_weights": str(weights)})
        with pytest.raises(UserError, match=r"missing\.pth: cannot be read"):
            opened(features={"layer": "conv1_2", "vgg_weights": str(tmp_path / "missing.pth")})
        loss = opened(features={"layer": "conv2_1", "vgg_weights": str(weights)})
        with pytest.raises(ValueError, match="features are those of images"):
            loss(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))
        with pytest.raises(ValueError, match=r"12x12 px .*whole patches of 8 px"):
            loss(torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 12))
