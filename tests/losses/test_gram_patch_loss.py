import inspect
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gramgan_plugin.functional import (
    TextureOptions,
    extract_patches,
    gram_matrix,
    random_draw,
    random_theta,
    texture,
)
from gramgan_plugin.losses import GramPatchLoss
from tests.losses.gram_patch_reference import opened, reference, targets_of

BEBY = {
    "patch_size": 3,
    "select_by": "pixel",
    "loss_on": "pixel",
    "downsample": [2, 4],
    "antialias": False,
    "affine_copies": 0,
}
OPTIONS = [
    {},
    {"loss_on": "pixel"},
    {"select_by": "pixel", "loss_on": "pixel"},
    {"select_by": "pixel"},
    {"center": True},
    {"center": True, "loss_on": "pixel", "criterion": "mse"},
    {"normalize": False},
    {"normalize": False, "center": True},
    {"criterion": "mse"},
    {"alpha": 0.25, "beta": 2.0},
    {"alpha": 1.0, "beta": 0.0},
    {"alpha": 0.0, "beta": 1.0, "affine_copies": 2, "affine_magnitude": 0.05},
    {"scope": "local", "radius": 0.5},
    {"scope": "local", "radius": 1},
    {"scope": "local", "radius": 1.5, "select_by": "pixel", "downsample": [2, 3], "affine_copies": 2},
    {"downsample": []},
    {"downsample": [2, 3, 4], "antialias": False},
    {"affine_copies": 0},
    {"affine_copies": 3, "affine_magnitude": 0.1, "affine_sampling": "bilinear"},
    {"patch_size": 3, "affine_copies": 1},
    {"patch_size": 2},
    {"patch_size": 12, "center": True},
    {"stride": 2},
    {"stride": 2, "center": True, "scope": "local", "radius": 1},
    {"patch_size": 3, "stride": 1, "select_by": "pixel", "loss_on": "pixel", "downsample": [2, 3]},
    {"patch_size": 8, "stride": 4, "center": True, "loss_on": "pixel", "affine_copies": 2},
    {"patch_size": 6, "stride": 3, "criterion": "mse", "affine_magnitude": 0.05, "scope": "local", "radius": 0.5},
    {"top_k": 3},
    {"top_k": 40, "stride": 2, "scope": "local", "radius": 0.5},
    {"top_k": 2, "select_by": "pixel"},
    BEBY,
]


def images(channels: int = 3, size: int = 24, n: int = 2, dtype: torch.dtype = torch.float64):
    """SR and GT of independent noise: candidates are well separated."""
    generator = torch.Generator().manual_seed(channels)
    return tuple(torch.rand(n, channels, size, size, generator=generator, dtype=dtype) for _ in range(2))


def photo_pair(size: int = 64):
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float() / 255
    gt = image[:, :, 100 : 100 + size, 180 : 180 + size]
    lq = F.interpolate(gt, scale_factor=0.25, mode="bicubic", antialias=True)
    return F.interpolate(lq, size=size, mode="bicubic"), gt


def theta_for(loss: GramPatchLoss, n: int = 2) -> torch.Tensor:
    return random_theta(n, loss.options.affine_copies, loss.options.affine_magnitude, seed=(0,))


def draw_for(loss: GramPatchLoss, gt: torch.Tensor) -> torch.Tensor:
    return random_draw(len(gt), loss.patches_in(gt), seed=(0,))


class FakeDatabase:
    """Enough to be taken for a database."""

    def search(self, queries: torch.Tensor, k: int = 1) -> None:
        raise AssertionError


class TestGramPatchLoss:
    def test_smoke(self):
        sr, gt = photo_pair()
        value = GramPatchLoss()(sr, gt)
        assert value.shape == ()
        assert value > 0

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_feature(self, options, channels):
        loss = GramPatchLoss(**options)
        sr, gt = images(channels)
        theta, draw = theta_for(loss), draw_for(loss, gt)
        expected, index = reference(sr, gt, theta, loss, draw)
        assert np.array_equal(targets_of(loss, sr, gt, theta, draw).index.numpy(), index)
        np.testing.assert_allclose(float(loss(sr, gt, theta, draw=draw)), expected, rtol=1e-9)

    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        channels=st.integers(1, 4),
        grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        patch_size=st.integers(2, 16),
        overlap=st.integers(0, 15),
        top_k=st.integers(1, 3),
        radius=st.none() | st.floats(0, 2),
        by=st.sampled_from([("gram", "gram"), ("gram", "pixel"), ("pixel", "gram"), ("pixel", "pixel")]),
        center=st.booleans(),
        downsample=st.lists(st.integers(2, 4), max_size=2),
        affine_copies=st.integers(0, 2),
    )
    def test_any_options(
        self, seed, channels, grid, patch_size, overlap, top_k, radius, by, center, downsample, affine_copies
    ):
        stride = max(1, patch_size - overlap)
        loss = GramPatchLoss(
            patch_size=patch_size,
            stride=stride,
            top_k=top_k,
            scope="crop" if radius is None else "local",
            radius=radius,
            select_by=by[0],
            loss_on=by[1],
            center=center,
            downsample=downsample,
            affine_copies=affine_copies,
            affine_magnitude=0.05,
        )
        generator = torch.Generator().manual_seed(seed)
        shape = (2, 1, channels, *(patch_size + stride * (number - 1) for number in grid))
        sr, gt = torch.rand(shape, generator=generator, dtype=torch.float64)
        theta, draw = theta_for(loss, 1), draw_for(loss, gt)
        # The reference makes each copy; one that holds no patch adds nothing to it either.
        made = [factor for factor in downsample if min(shape[3:]) >= factor]
        loss.options = replace(loss.options, downsample=made)
        expected, index = reference(sr, gt, theta, loss, draw)
        assert np.array_equal(targets_of(loss, sr, gt, theta, draw).index.numpy(), index)
        np.testing.assert_allclose(float(loss(sr, gt, theta, draw=draw)), expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("options", [{}, {"center": True}, {"stride": 2, "center": True}, BEBY], ids=str)
    def test_photo_in_float32(self, options):
        loss = GramPatchLoss(**options)
        sr, gt = (x[:, :, :48, :48] for x in photo_pair())
        theta = theta_for(loss, 1)
        expected, index = reference(sr.double(), gt.double(), theta, loss)
        assert np.mean(targets_of(loss, sr, gt, theta).index.numpy() == index) > 0.99
        np.testing.assert_allclose(float(loss(sr, gt, theta)), expected, rtol=1e-3)

    def test_perfect_sr(self):
        _, gt = photo_pair()
        assert float(GramPatchLoss()(gt, gt)) == 0

    def test_loss_weight(self):
        sr, gt = images()
        theta = theta_for(GramPatchLoss())
        torch.testing.assert_close(GramPatchLoss(loss_weight=0.3)(sr, gt, theta), 0.3 * GramPatchLoss()(sr, gt, theta))

    @pytest.mark.parametrize("shape", [(1, 3, 8, 20), (3, 1, 4, 4), (2, 6, 16, 8)])
    def test_cardinality(self, shape):
        sr, gt = torch.rand(shape), torch.rand(shape)
        loss = GramPatchLoss()
        assert targets_of(loss, sr, gt).index.shape == (shape[0], shape[2] // 4 * (shape[3] // 4))
        assert loss(sr, gt).shape == ()

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_every_pixel_has_a_gradient(self, options):
        sr, gt = (x.requires_grad_() for x in images())
        # Where patches overlap, the signs that L1 has for gradients may cancel.
        GramPatchLoss(**(options | {"criterion": "mse"} if "stride" in options else options))(sr, gt).backward()
        assert gt.grad is None
        assert (sr.grad.abs().sum(dim=1) > 0).all()

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"center": True},
            {"criterion": "mse"},
            {"stride": 2},
            {"stride": 1, "center": True},
            {"stride": 2, "loss_on": "pixel"},
            {"patch_size": 3, "stride": 1, "center": True, "criterion": "mse", "normalize": False},
            {"top_k": 2},
            BEBY,
        ],
        ids=str,
    )
    def test_gradcheck(self, options):
        loss = GramPatchLoss(**options)
        size = 2 * loss.options.patch_size
        sr, gt = images(2, size, n=1)
        theta, draw = theta_for(loss, 1), draw_for(loss, gt)
        assert torch.autograd.gradcheck(lambda x: loss(x, gt, theta, draw=draw), sr.requires_grad_())

    def test_descent_lowers_it(self):
        sr, gt = photo_pair(32)
        loss, theta = GramPatchLoss(center=True), random_theta(1, 1, 0.003, (0,))
        sr.requires_grad_()
        before = loss(sr, gt, theta)
        (gradient,) = torch.autograd.grad(before, sr)
        assert loss(sr - 1e-2 * gradient / gradient.norm(), gt, theta) < before

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_autocast(self, options):
        loss = GramPatchLoss(**options)
        sr, gt = images(dtype=torch.float32)
        sr.requires_grad_()
        theta, draw = theta_for(loss), draw_for(loss, gt)
        outside = loss(sr, gt, theta, draw=draw)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(sr, gt, theta, draw=draw)
        assert torch.equal(inside, outside)
        grads = [torch.autograd.grad(value, sr)[0] for value in (inside, outside)]
        assert torch.equal(*grads)

    def test_dtype(self):
        sr, gt = images()
        loss = GramPatchLoss()
        theta = theta_for(loss)
        assert loss(sr, gt, theta).dtype == torch.float64
        low = loss(sr.bfloat16(), gt.bfloat16(), theta)
        assert low.dtype == torch.float32
        assert torch.equal(low, loss(sr.bfloat16().float(), gt.bfloat16().float(), theta))
        assert loss(sr.bfloat16(), gt.float(), theta).dtype == torch.float32

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_channels_last(self, options):
        loss = GramPatchLoss(**options)
        sr, gt = images()
        theta, draw = theta_for(loss), draw_for(loss, gt)
        found = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x, y = (image.to(memory_format=layout) for image in (sr, gt))
            value = loss(x.requires_grad_(), y, theta, draw=draw)
            found.append((value, torch.autograd.grad(value, x)[0]))
        for first, last in zip(*found, strict=True):
            torch.testing.assert_close(first, last, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("options", [{"center": True, "patch_size": 2}, BEBY], ids=str)
    def test_compile(self, options):
        loss = GramPatchLoss(**options)
        sr, gt = images(2, 12, dtype=torch.float32)
        theta = theta_for(loss)
        torch._dynamo.reset()
        compiled = torch.compile(loss, backend="aot_eager")
        found = []
        for function in (loss, compiled):
            value = function(sr.requires_grad_(), gt, theta)
            found.append((value, torch.autograd.grad(value, sr)[0]))
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))

    @pytest.mark.parametrize("options", [{}, {"center": True}, BEBY], ids=str)
    def test_threads(self, options):
        """Spread over threads, the samples have the same answers."""
        sr, gt = (x.repeat(3, 1, 1, 1) for x in photo_pair(96))
        gt[1], sr[1] = gt[1].flip(-1), sr[1].flip(-1)
        loss = GramPatchLoss(**options)
        theta, before, found = theta_for(loss, 3), torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(targets_of(loss, sr, gt, theta).index)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])

    def test_report(self):
        sr, gt = images()
        loss = GramPatchLoss(center=True, affine_copies=0)
        report = {}
        value = loss(sr, gt, report=report)
        assert torch.equal(value, loss(sr, gt))
        chosen = targets_of(loss, sr, gt, measure=True)
        assert list(report) == ["original", "downsampled", "affine", "distance", "one_to_one"]
        x, y = (gram_matrix(extract_patches(image, 4), center=True) for image in (sr, gt))
        target = gram_matrix(chosen.candidates.take(chosen.index), center=True)
        torch.testing.assert_close(report["distance"], (x - target).norm(dim=(2, 3)).mean())
        torch.testing.assert_close(report["one_to_one"], (x - y).norm(dim=(2, 3)).mean())
        assert report["distance"] < report["one_to_one"]
        assert targets_of(loss, sr, gt).distance is None

    def test_chunk_size(self):
        sr, gt = photo_pair()
        theta = random_theta(1, 1, 0.003, (0,))
        values = [GramPatchLoss(chunk_size=chunk)(sr, gt, theta) for chunk in (100, 2**20)]
        assert torch.equal(*values)

    def test_theta_from_the_default_generator(self):
        sr, gt = images()
        loss = GramPatchLoss(affine_magnitude=0.1)
        torch.manual_seed(3)
        first = loss(sr, gt)
        assert loss(sr, gt) != first
        torch.manual_seed(3)
        assert loss(sr, gt) == first
        torch.manual_seed(3)
        assert loss(sr, gt, torch.eye(2, 3) + 0.1 * torch.randn(2, 1, 2, 3)) == first

    def test_batch_is_samples(self):
        # Candidates are of the same crop: the loss of a batch is the mean over its samples.
        loss = GramPatchLoss()
        sr, gt = images()
        theta = theta_for(loss)
        alone = [loss(sr[i : i + 1], gt[i : i + 1], theta[i : i + 1]) for i in range(2)]
        torch.testing.assert_close(loss(sr, gt, theta), sum(alone) / 2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"select_by": "colour"}, "select_by: expected one of gram, pixel"),
            ({"loss_on": "l1"}, "loss_on"),
            ({"criterion": "l2"}, "criterion: expected one of l1, mse"),
            ({"affine_sampling": "nearest"}, "affine_sampling"),
            ({"scope": "image"}, "scope: expected one of crop, local"),
            ({"scope": "local"}, "radius"),
            ({"radius": 2}, "radius"),
            ({"scope": "local", "radius": -1}, "radius"),
            ({"alpha": 0, "beta": 0}, "alpha and beta"),
            ({"alpha": -1}, "alpha and beta"),
            ({"downsample": [1]}, "downsample"),
            ({"downsample": [0.5]}, "downsample"),
            ({"patch_size": 0}, "patch_size"),
            ({"chunk_size": 0}, "chunk_size"),
            ({"affine_copies": -1}, "affine_copies"),
            ({"stride": 0}, "stride: .* 4, got 0"),
            ({"stride": 5}, "stride: .* 4, got 5"),
            ({"top_k": 0}, "top_k: must be at least 1"),
            ({"database_use": "never"}, "database_use: expected one of also, only"),
            ({"database_index": "ball"}, "database_index: expected one of auto, exact"),
            ({"database_index": "flat"}, "database_index: .*'flat'; write 'exact' "),
            ({"database": FakeDatabase(), "select_by": "pixel"}, "select_by: a database"),
            ({"features": {}}, "features: expected `layer` .*, got nothing"),
            ({"features": {"layer": "conv1_2", "depth": 1}}, "features: expected `layer`"),
            ({"features": {"layer": "conv9_9"}}, "features: expected a layer of VGG19, .* got 'conv9_9'"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            opened(**options)

    def test_it_opens_no_file(self):
        for database in ("x", Path("x"), 4):
            with pytest.raises(ValueError, match=r"^database: .* opens no file"):
                GramPatchLoss(database=database)
        for features in ({"layer": "conv1_2"}, "conv1_2", 4):
            with pytest.raises(ValueError, match=r"^features: .* opens no file"):
                GramPatchLoss(features=features)

    def test_targets_of_other_options(self):
        sr, gt = images()
        targets = targets_of(GramPatchLoss(), sr, gt)
        assert GramPatchLoss(criterion="mse", loss_on="pixel")(sr, gt, targets=targets) > 0
        for options in ({"center": True}, {"normalize": False}, {"patch_size": 8}, {"stride": 2}):
            with pytest.raises(ValueError, match=r"targets: .*other options"):
                GramPatchLoss(**options)(sr, gt, targets=targets)
        with pytest.raises(ValueError, match=r"targets: \(\d+, \d+\) for \(\d+, \d+\)"):
            GramPatchLoss()(sr[..., :-8], gt[..., :-8], targets=targets)

    def test_signature(self):
        """Each option has a name of its own, for help() and for the check of option files."""
        parameters = inspect.signature(GramPatchLoss).parameters
        assert [field.name for field in fields(TextureOptions)] == list(parameters)[4:]
        assert list(parameters)[:4] == ["loss_weight", "features", "database", "database_index"]
        assert parameters["radius"].default is None
        assert parameters["alpha"].annotation is float

    def test_exception(self):
        loss = GramPatchLoss()
        with pytest.raises(ValueError, match=r"10x8 px .*whole patches of 4 px"):
            loss(torch.zeros(1, 3, 10, 8), torch.zeros(1, 3, 10, 8))
        with pytest.raises(ValueError, match=r"9x8 px .*whole patches of 4 px, 2 px from"):
            GramPatchLoss(stride=2)(torch.zeros(1, 3, 9, 8), torch.zeros(1, 3, 9, 8))
        with pytest.raises(ValueError, match="3x8 px cannot be cut"):
            GramPatchLoss(stride=1)(torch.zeros(1, 3, 3, 8), torch.zeros(1, 3, 3, 8))
        with pytest.raises(ValueError, match="one shape"):
            loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 12))
        with pytest.raises(ValueError, match="sr: expected"):
            loss(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))
        with pytest.raises(ValueError, match="theta: expected shape"):
            loss(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), torch.zeros(1, 1, 2, 3))


class TestTargets:
    def test_kinds(self):
        sr, gt = photo_pair()
        selection = targets_of(GramPatchLoss(), sr, gt, random_theta(1, 1, 0.003, (0,)))
        index = selection.index.numpy()
        bounds = [256, 256 + 64, 256 + 64 + 256]  # 16 x 16 patches of GT, 8 x 8 of x1/2, 16 x 16 warped
        expected = np.digitize(index, bounds)
        assert np.array_equal(selection.kind.numpy(), expected)
        fractions = selection.kind_fractions()
        assert list(fractions) == ["original", "downsampled", "affine"]
        assert fractions == {name: np.mean(expected == i) for i, name in enumerate(fractions)}
        assert selection.own_position_fraction() == np.mean(index == np.arange(256))

    def test_perfect_sr_chooses_its_own_position(self):
        sr, gt = images()
        selection = targets_of(GramPatchLoss(), gt, gt)
        assert selection.own_position_fraction() == 1
        assert selection.kind_fractions() == {"original": 1, "downsampled": 0, "affine": 0}
        assert not selection.index.requires_grad
        assert sr.shape == gt.shape

    @pytest.mark.parametrize("options", [{"top_k": 3}, {"scope": "local", "radius": 1, "top_k": 2}], ids=str)
    def test_a_sample_at_a_time(self, options, monkeypatch):
        sr, gt = images(n=3)
        loss = GramPatchLoss(**options)
        theta, draw = theta_for(loss, 3), draw_for(loss, gt)
        whole = targets_of(loss, sr, gt, theta, draw, measure=True)
        monkeypatch.setattr(texture, "MOST_NUMBERS", 1)
        parts = targets_of(loss, sr, gt, theta, draw, measure=True)
        for name in ("index", "chosen", "distance", "one_to_one"):
            assert torch.equal(getattr(parts, name), getattr(whole, name)), name

    def test_describe(self):
        sr, gt = images()
        selection = targets_of(GramPatchLoss(affine_copies=0), sr, gt)
        pixels, chosen = selection.candidates.describe("pixel"), selection.describe("pixel")
        for n in range(2):
            for i in range(36):
                assert torch.equal(chosen[n, i], pixels[n, selection.index[n, i]])
