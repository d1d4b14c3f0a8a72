import numpy as np
import pytest
import skimage.data
import torch
from torch.nn import functional as F

from gramgan_plugin.functional import KINDS, random_theta
from gramgan_plugin.losses import GramPatchLoss

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
    return random_theta(n, loss.affine_copies, loss.affine_magnitude, seed=(0,))


def reference(sr, gt, theta, loss: GramPatchLoss):
    """L_PT by loops over patches and candidates, in float64: (loss, chosen index of each patch)."""
    p = loss.patch_size

    def patches_of(image):
        height, width = image.shape[1:]
        for top in range(0, height - p + 1, p):
            for left in range(0, width - p + 1, p):
                patch = image[:, top : top + p, left : left + p].reshape(image.shape[0], -1).numpy().T
                yield (
                    patch,
                    ((top + p / 2) / height, (left + p / 2) / width),
                )  # (pixels, channels), centre in [0, 1]

    def describe(patch, by):
        if by == "pixel":
            return patch
        if loss.center:
            patch = patch - patch.mean(axis=0)
        gram = patch.T @ patch
        return gram / len(patch) if loss.normalize else gram

    chosen, differences = [], []
    for n in range(len(sr)):
        one = gt[n : n + 1]
        copies = [one]
        for factor in loss.downsample:
            size = [side // factor for side in one.shape[2:]]
            copies.append(F.interpolate(one, size=size, mode="bicubic", antialias=loss.antialias))
        for copy in range(loss.affine_copies):
            grid = F.affine_grid(theta[n, copy][None].double(), list(one.shape), align_corners=False)
            copies.append(F.grid_sample(one, grid, loss.affine_sampling, "reflection", align_corners=False))
        candidates = [pair for image in copies for pair in patches_of(image[0])]
        for (e, at), (g, _) in zip(patches_of(sr[n]), patches_of(one[0]), strict=True):
            costs = []
            for candidate, centre in candidates:
                offset = max(abs(a - b) * side for a, b, side in zip(at, centre, one.shape[2:], strict=True)) / p
                d = describe(candidate, loss.select_by)
                cost = loss.alpha * np.sum((d - describe(e, loss.select_by)) ** 2)
                cost += loss.beta * np.sum((d - describe(g, loss.select_by)) ** 2)
                costs.append(np.inf if loss.radius is not None and offset > loss.radius + 1e-9 else cost)
            chosen.append(int(np.argmin(costs)))
            difference = describe(e, loss.loss_on) - describe(candidates[chosen[-1]][0], loss.loss_on)
            differences.append(np.mean(np.abs(difference) if loss.criterion == "l1" else difference**2))
    return np.mean(differences), np.array(chosen).reshape(len(sr), -1)


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
        theta = theta_for(loss)
        expected, index = reference(sr, gt, theta, loss)
        assert np.array_equal(loss.select(sr, gt, theta).index.numpy(), index)
        np.testing.assert_allclose(float(loss(sr, gt, theta)), expected, rtol=1e-9)

    @pytest.mark.parametrize("options", [{}, {"center": True}, BEBY], ids=str)
    def test_photo_in_float32(self, options):
        loss = GramPatchLoss(**options)
        sr, gt = (x[:, :, :48, :48] for x in photo_pair())
        theta = theta_for(loss, 1)
        expected, index = reference(sr.double(), gt.double(), theta, loss)
        assert np.mean(loss.select(sr, gt, theta).index.numpy() == index) > 0.99
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
        assert loss.select(sr, gt).index.shape == (shape[0], shape[2] // 4 * (shape[3] // 4))
        assert loss(sr, gt).shape == ()

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_every_pixel_has_a_gradient(self, options):
        sr, gt = (x.requires_grad_() for x in images())
        GramPatchLoss(**options)(sr, gt).backward()
        assert gt.grad is None
        assert (sr.grad.abs().sum(dim=1) > 0).all()

    @pytest.mark.parametrize("options", [{}, {"center": True}, {"criterion": "mse"}, BEBY], ids=str)
    def test_gradcheck(self, options):
        loss = GramPatchLoss(**options)
        size = 2 * loss.patch_size
        sr, gt = images(2, size, n=1)
        theta = theta_for(loss, 1)
        assert torch.autograd.gradcheck(lambda x: loss(x, gt, theta), sr.requires_grad_())

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
        theta = theta_for(loss)
        outside = loss(sr, gt, theta)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(sr, gt, theta)
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

    def test_channels_last(self):
        loss = GramPatchLoss()
        sr, gt = images()
        theta = theta_for(loss)
        last = [x.to(memory_format=torch.channels_last) for x in (sr, gt)]
        torch.testing.assert_close(loss(*last, theta), loss(sr, gt, theta))

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
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            GramPatchLoss(**options)

    def test_exception(self):
        loss = GramPatchLoss()
        with pytest.raises(ValueError, match="10x8 px cannot be cut into whole patches of 4 px"):
            loss(torch.zeros(1, 3, 10, 8), torch.zeros(1, 3, 10, 8))
        with pytest.raises(ValueError, match="one shape"):
            loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 12))
        with pytest.raises(ValueError, match="sr: expected"):
            loss(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))
        with pytest.raises(ValueError, match="theta: expected shape"):
            loss(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), torch.zeros(1, 1, 2, 3))


class TestSelection:
    def test_kinds(self):
        sr, gt = photo_pair()
        selection = GramPatchLoss().select(sr, gt, random_theta(1, 1, 0.003, (0,)))
        index = selection.index.numpy()
        bounds = [256, 256 + 64, 256 + 64 + 256]  # 16 x 16 patches of GT, 8 x 8 of x1/2, 16 x 16 warped
        expected = np.digitize(index, bounds)
        assert np.array_equal(selection.kind.numpy(), expected)
        fractions = selection.kind_fractions()
        assert list(fractions) == list(KINDS)
        assert fractions == {name: np.mean(expected == i) for i, name in enumerate(KINDS)}
        assert selection.own_position_fraction() == np.mean(index == np.arange(256))

    def test_perfect_sr_chooses_its_own_position(self):
        sr, gt = images()
        selection = GramPatchLoss().select(gt, gt)
        assert selection.own_position_fraction() == 1
        assert selection.kind_fractions() == {"original": 1, "downsampled": 0, "affine": 0}
        assert not selection.index.requires_grad
        assert sr.shape == gt.shape

    def test_describe(self):
        sr, gt = images()
        selection = GramPatchLoss(affine_copies=0).select(sr, gt)
        pixels, chosen = selection.candidates.describe("pixel"), selection.describe("pixel")
        for n in range(2):
            for i in range(36):
                assert torch.equal(chosen[n, i], pixels[n, selection.index[n, i]])
