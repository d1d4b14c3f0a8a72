import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gramgan_plugin.functional import (
    KINDS,
    affine_warp,
    candidate_set,
    describe_patches,
    downsampled,
    extract_patches,
    random_draw,
    random_theta,
)
from gramgan_plugin.functional.candidates import _generators


def photo(size: int = 48) -> torch.Tensor:
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float() / 255
    return image[:, :, 100 : 100 + size, 200 : 200 + size]


class TestRandomTheta:
    def test_smoke(self):
        theta = random_theta(2, 3, 0.003, seed=(0,))
        assert theta.shape == (2, 3, 2, 3)
        assert theta.dtype == torch.float32

    @settings(max_examples=30, deadline=None)
    @given(
        seed=st.lists(st.integers(0, 2**63), min_size=1, max_size=3),
        first=st.integers(0, 10**6),
        n=st.integers(1, 6),
        cut=st.integers(0, 6),
        copies=st.integers(0, 3),
    )
    def test_independent_of_the_split(self, seed, first, n, cut, copies):
        cut = min(cut, n)
        whole = random_theta(n, copies, 0.1, seed, first)
        parts = (
            random_theta(cut, copies, 0.1, seed, first),
            random_theta(n - cut, copies, 0.1, seed, first + cut),
        )
        assert torch.equal(torch.cat(parts), whole)

    @pytest.mark.parametrize("world", [2, 3])
    def test_spread_over_processes(self, world):
        whole = random_theta(6, 2, 0.1, (1, 2), 4)
        for rank in range(world):
            own = random_theta(6 // world, 2, 0.1, (1, 2), 4 + rank, stride=world)
            assert torch.equal(own, whole[rank::world])

    def test_independent_of_global_state(self):
        torch.manual_seed(1)
        a = random_theta(2, 1, 0.003, seed=(5, 6))
        state = torch.get_rng_state()
        torch.manual_seed(2)
        assert torch.equal(random_theta(2, 1, 0.003, seed=(5, 6)), a)
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)

    def test_all_differ(self):
        thetas = [random_theta(4, 2, 1.0, seed).flatten(0, 1) for seed in [(0, 0), (0, 1), (1, 0), (1, 1)]]
        assert len({float(theta[0, 0]) for theta in torch.cat(thetas)}) == 32

    def test_distribution(self):
        noise = (random_theta(4000, 1, 0.003, seed=(1,)) - torch.eye(2, 3)).flatten(1).double() / 0.003
        assert noise.mean(0).abs().max() < 0.06  # 4 standard errors
        assert (noise.std(0) - 1).abs().max() < 0.05
        assert (torch.corrcoef(noise.t()) - torch.eye(6)).abs().max() < 0.07

    def test_draws_are_independent_of_the_split_and_of_the_warps(self):
        whole = random_draw(6, 50, (1, 2), 4)
        assert whole.shape == (6, 50)
        assert 0 <= whole.min() < 0.05 < 0.95 < whole.max() < 1
        assert torch.equal(random_draw(3, 50, (1, 2), 5, stride=2), whole[1::2])
        assert not torch.equal(random_draw(6, 50, (1, 3), 4), whole)
        assert len(whole.unique()) == 300
        # One stream read in two ways would not show in a correlation.
        assert len({one.initial_seed() for pair in _generators(6, (1, 2), 4, 1) for one in pair}) == 12
        noise = random_theta(300, 1, 1.0, (1,)).flatten(1)[:, 1]
        assert abs(torch.corrcoef(torch.stack([noise, random_draw(300, 1, (1,))[:, 0]]))[0, 1]) < 0.2

    def test_exception(self):
        with pytest.raises(ValueError, match="must not be negative"):
            random_draw(1, 1, seed=(-1,))
        with pytest.raises(ValueError, match="must not be negative"):
            random_theta(1, 1, 0.003, seed=(-1,))
        with pytest.raises(ValueError, match="must not be negative"):
            random_theta(1, 1, 0.003, seed=(1,), first_index=-1)
        with pytest.raises(ValueError, match="stride must be at least 1"):
            random_theta(1, 1, 0.003, seed=(1,), stride=0)


class TestAffineWarp:
    @pytest.mark.parametrize("sampling", ["bicubic", "bilinear"])
    def test_identity(self, sampling):
        image = photo()
        torch.testing.assert_close(affine_warp(image, torch.eye(2, 3)[None], sampling), image, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("sampling", ["bicubic", "bilinear"])
    @pytest.mark.parametrize("shape", [(2, 3, 24, 24), (2, 1, 16, 28)])
    def test_feature(self, sampling, shape):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        theta = random_theta(2, 1, 0.1, seed=(0,))[:, 0].double()
        grid = F.affine_grid(theta, list(shape), align_corners=False)
        expected = F.grid_sample(image, grid, sampling, "reflection", align_corners=False)
        torch.testing.assert_close(affine_warp(image, theta, sampling), expected, atol=1e-10, rtol=0)

    def test_whole_pixel_shift(self):
        image = photo()
        theta = torch.tensor([[[1.0, 0, 2 * 3 / 48], [0, 1, 2 * 5 / 48]]])  # 3 px in x, 5 px in y
        shifted = affine_warp(image, theta)[:, :, :-5, :-3]
        torch.testing.assert_close(shifted, image[:, :, 5:, 3:], atol=1e-4, rtol=0)

    def test_autocast(self):
        image, theta = photo(), random_theta(1, 1, 0.003, seed=(0,))[:, 0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = affine_warp(image, theta)
        assert torch.equal(inside, affine_warp(image, theta))


class TestCandidateSet:
    def test_smoke(self):
        assert len(candidate_set(photo()).images) == 2

    def test_cardinality(self):
        candidates = candidate_set(photo(48).expand(2, -1, -1, -1), random_theta(2, 3, 0.003, (0,)), 4, (2, 3))
        # 12 x 12 of GT, 6 x 6 of x1/2, 4 x 4 of x1/3, three times 12 x 12 warped
        assert candidates.describe("gram").shape == (2, 144 + 36 + 16 + 3 * 144, 6)
        assert candidates.describe("pixel").shape == (2, 144 + 36 + 16 + 3 * 144, 48)
        assert [KINDS[i] for i in candidates.kinds] == ["original", "downsampled", "downsampled"] + ["affine"] * 3
        assert torch.bincount(candidates.kind()).tolist() == [144, 52, 432]

    def test_remainder_is_dropped(self):
        gt = photo(24)
        candidates = candidate_set(gt, None, 4, (2, 4, 5, 7))
        # x1/4 is 6 px: one patch; x1/5 is 4 px: one patch; x1/7 is 3 px: none
        assert [tuple(image.shape[2:]) for image in candidates.images] == [(24, 24), (12, 12), (6, 6), (4, 4)]
        assert candidates.kind().tolist() == [0] * 36 + [1] * (9 + 1 + 1)

    def test_feature(self):
        gt = photo(16)
        candidates = candidate_set(gt, None, 4, (2,))
        small = F.interpolate(gt, scale_factor=0.5, mode="bicubic", antialias=True)
        expected = torch.cat([extract_patches(gt, 4), extract_patches(small, 4)], dim=1).flatten(2)
        torch.testing.assert_close(candidates.describe("pixel"), expected)

    @pytest.mark.parametrize("stride", [None, 2])
    def test_take(self, stride):
        gt = photo(16).repeat(2, 1, 1, 1)
        gt[1] = gt[1].flip(-1)
        candidates = candidate_set(gt, random_theta(2, 1, 0.003, (0,)), 4, (2,), stride=stride)
        index = torch.tensor([[0, 17, 30], [5, 5, 20]])
        pixels, taken = candidates.describe("pixel"), candidates.take(index)
        assert taken.shape == (2, 3, 16, 3)
        for n in range(2):
            for i in range(3):
                assert torch.equal(taken[n, i].flatten(), pixels[n, index[n, i]])

    def test_stride(self):
        candidates = candidate_set(photo(16), None, 4, (2,), stride=2)
        assert candidates.counts() == [49, 9]
        expected = torch.cat([extract_patches(image, 4, 2) for image in candidates.images], dim=1)
        assert torch.equal(candidates.describe("pixel"), expected.flatten(2))
        assert candidates.centres()[:2].tolist() == [[2, 2], [2, 4]]
        assert candidates.centres()[49:51].tolist() == [[4, 4], [4, 8]]

    def test_features(self):
        """Each image is mapped as it is; copies whose maps hold no patch are left out."""
        seen = []

        def embed(image):
            seen.append(tuple(image.shape[2:]))
            return F.avg_pool2d(image, 2).repeat(1, 3, 1, 1).bfloat16()

        candidates = candidate_set(photo(34), random_theta(1, 1, 0.003, (0,)), 4, (2, 4, 5), embed=embed, reduction=2)
        assert seen == [(34, 34), (17, 17), (8, 8), (34, 34)]
        assert [tuple(image.shape) for image in candidates.images] == [(1, 9, s, s) for s in (17, 8, 4, 17)]
        assert all(image.dtype == torch.float32 for image in candidates.images)
        with pytest.raises(ValueError, match="gt of 7x7 px holds no patch of 8 px"):
            candidate_set(photo(7), embed=embed, reduction=2)

    def test_antialias(self):
        gt = photo(16)
        plain = F.interpolate(gt, scale_factor=0.5, mode="bicubic", align_corners=False)
        torch.testing.assert_close(downsampled(gt, 2, antialias=False), plain)
        assert (downsampled(gt, 2) - plain).abs().max() > 1e-3

    def test_centres(self):
        centres = candidate_set(photo(16), random_theta(1, 1, 0.003, (0,)), 4, (2,)).centres()
        full = [[4 * y + 2, 4 * x + 2] for y in range(4) for x in range(4)]
        half = [[8 * y + 4, 8 * x + 4] for y in range(2) for x in range(2)]
        assert centres.tolist() == full + half + full

    def test_no_gradient(self):
        candidates = candidate_set(photo(16).requires_grad_(), random_theta(1, 1, 0.003, (0,)))
        assert not any(image.requires_grad for image in candidates.images)

    def test_exception(self):
        with pytest.raises(ValueError, match="holds no patch"):
            candidate_set(torch.zeros(1, 3, 3, 8))
        with pytest.raises(ValueError, match="theta: expected"):
            candidate_set(torch.zeros(2, 3, 8, 8), torch.zeros(1, 1, 2, 3))
        with pytest.raises(ValueError, match="gt: expected"):
            candidate_set(torch.zeros(3, 8, 8))
        with pytest.raises(ValueError, match="'gram' or 'pixel'"):
            describe_patches(torch.zeros(1, 3, 8, 8), 4, "colour")

    def test_bicubic_copy_keeps_more_detail(self):
        def laplacian_energy(image: torch.Tensor) -> float:
            kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(3, 1, 3, 3)
            return float(np.square(F.conv2d(image, kernel, groups=3).numpy()).mean())

        gt, theta = photo(96), random_theta(1, 1, 0.003, (0,))[:, 0]
        energy = {mode: laplacian_energy(affine_warp(gt, theta, mode)) for mode in ("bicubic", "bilinear")}
        assert energy["bilinear"] < energy["bicubic"] < laplacian_energy(gt)
