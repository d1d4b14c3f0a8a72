from itertools import permutations

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, jensenshannon
from torch.nn import functional as F

from gramgan_plugin.functional import gromov_wasserstein, jensen_shannon
from gramgan_plugin.functional.divergences import best_permutation, image_distances


def photos(n: int = 5, side: int = 32) -> torch.Tensor:
    """Crops of three photos, (n, 3, side, side) in [0, 1], float64."""
    sources = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee()]
    crops = [sources[k % 3][20 + 31 * k :, 30 + 17 * k :][:side, :side] for k in range(n)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).double() / 255


def noisy(images: torch.Tensor, amount: float = 0.1, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (images + amount * noise).clamp(0, 1)


def random(n: int, dims: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestJensenShannon:
    def test_equals_scipy(self):
        gt = photos()
        sr = noisy(gt)
        expected = [jensenshannon(a.flatten() + 1e-8, b.flatten() + 1e-8) ** 2 for a, b in zip(sr, gt, strict=True)]
        assert float(jensen_shannon(sr, gt)) == pytest.approx(np.mean(expected), rel=1e-9)
        assert min(expected) > 1e-3

    def test_float32(self):
        gt = photos(side=96)
        for amount in (1e-3, 0.1):
            sr = noisy(gt, amount)
            expected = float(jensen_shannon(sr, gt))
            assert float(jensen_shannon(sr.float(), gt.float())) == pytest.approx(expected, rel=1e-2, abs=1e-8)

    def test_bounds(self):
        gt = photos()
        assert float(jensen_shannon(gt, gt)) == 0
        left, right = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
        left[..., :2], right[..., 2:] = 1, 1
        assert float(jensen_shannon(left, right)) == pytest.approx(np.log(2), rel=1e-5)
        assert float(jensen_shannon(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))) == 0

    def test_a_common_factor_changes_nothing(self):
        gt = photos() + 0.1
        assert float(jensen_shannon(gt / 2, gt)) == pytest.approx(0, abs=1e-12)

    def test_each_image_alone(self):
        gt, sr = photos(), noisy(photos())
        single = [jensen_shannon(sr[k : k + 1], gt[k : k + 1]) for k in range(len(gt))]
        torch.testing.assert_close(jensen_shannon(sr, gt), torch.stack(single).mean())

    def test_negative_values_count_as_zero(self):
        gt, sr = photos(), noisy(photos())
        sr[:, :, :4] = -0.2
        expected = jensen_shannon(sr.clamp(0), gt)
        sr.requires_grad_()
        value = jensen_shannon(sr, gt)
        value.backward()
        torch.testing.assert_close(value, expected)
        assert sr.grad.isfinite().all()
        assert (sr.grad[:, :, 4:] != 0).any()

    def test_gradcheck(self):
        gt = photos(2, 6) * 0.8 + 0.1
        sr = noisy(gt).clamp(0.05, 0.95).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: jensen_shannon(x, gt), sr, atol=1e-8)

    def test_descends(self):
        """Its gradient leads SR's values towards GT's, up to their common factor."""
        gt = photos(2, 8)
        sr = torch.full_like(gt, 0.5).requires_grad_()
        begun = jensen_shannon(sr, gt).item()
        for _ in range(60):
            (gradient,) = torch.autograd.grad(jensen_shannon(sr, gt), sr)
            sr = (sr - 30 * gradient).clamp(0.01, 1).detach().requires_grad_()
        assert jensen_shannon(sr, gt).item() < 0.2 * begun

    def test_dtype(self):
        gt, sr = photos().bfloat16(), noisy(photos()).bfloat16()
        assert jensen_shannon(sr, gt).dtype == torch.float32
        torch.testing.assert_close(jensen_shannon(sr, gt), jensen_shannon(sr.float(), gt.float()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = jensen_shannon(sr.float(), gt.float())
        torch.testing.assert_close(inside, jensen_shannon(sr.float(), gt.float()), rtol=0, atol=0)

    def test_exception(self):
        with pytest.raises(ValueError, match="expected images of one shape"):
            jensen_shannon(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5))


def matrices(lq: torch.Tensor, sr: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """SciPy's distances, divided by their maxima."""
    both = [cdist(x.flatten(1).numpy(), x.flatten(1).numpy()) for x in (lq.double(), sr.double())]
    return both[0] / both[0].max(), both[1] / both[1].max()


def objective(first: np.ndarray, second: np.ndarray, plan: np.ndarray) -> float:
    """The definition: the sum over i, j, k, l of (first_ik - second_jl)^2 plan_ij plan_kl."""
    n, total = len(first), 0.0
    for i in range(n):
        for k in range(n):
            for j in range(n):
                for other in range(n):
                    total += (first[i, k] - second[j, other]) ** 2 * plan[i, j] * plan[k, other]
    return total


def smallest(first: np.ndarray, second: np.ndarray) -> float:
    """The smallest objective of all permutation plans."""
    orders = (list(order) for order in permutations(range(len(first))))
    return min(float(((first - second[np.ix_(order, order)]) ** 2).mean()) for order in orders)


class TestGromovWasserstein:
    @pytest.mark.parametrize("n", [4, 5, 6])
    def test_value_of_its_plan(self, n):
        lq, sr = photos(n, 8), noisy(photos(n), 0.3)
        first, second = matrices(lq, sr)
        order = best_permutation(image_distances(lq), image_distances(sr)).numpy()
        plan = np.eye(n)[order] / n  # image i of LQ goes to image order[i] of SR
        assert sorted(order) == list(range(n))
        expected = objective(first, second, plan)
        assert float(gromov_wasserstein(lq, sr)) == pytest.approx(expected, rel=1e-9)
        assert expected > 1e-5

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(n=st.integers(4, 6), dims=st.sampled_from([1, 2, 3, 50]), seed=st.integers(0, 10**6))
    def test_no_permutation_is_better(self, n, dims, seed):
        """Of two unrelated batches too; the few smallest ones that a search by exchanges misses are near."""
        lq, sr = random(n, dims, seed), random(n, dims + 1, seed + 1)
        found, least = float(gromov_wasserstein(lq, sr)), smallest(*matrices(lq, sr))
        assert least - 1e-12 <= found <= 1.25 * least + 1e-12

    def test_almost_always_the_smallest(self):
        found = [
            float(gromov_wasserstein(random(n, 2, seed), random(n, 3, seed + 1000)))
            - smallest(*matrices(random(n, 2, seed), random(n, 3, seed + 1000)))
            for seed in range(40)
            for n in (4, 5, 6)
        ]
        assert sum(difference > 1e-9 for difference in found) <= 2

    @pytest.mark.parametrize("n", [4, 5])
    def test_no_other_plan_is_better(self, n):
        """A vertex is a minimum: neither the uniform plan nor mixtures of permutations are below it."""
        lq, sr = photos(n, 8), noisy(photos(n), 0.3)
        first, second = matrices(lq, sr)
        rng = np.random.default_rng(0)
        value = float(gromov_wasserstein(lq, sr))
        assert objective(first, second, np.full((n, n), 1 / n**2)) >= value
        for _ in range(20):
            shares = rng.dirichlet(np.full(4, 0.3))
            plan = sum(share * np.eye(n)[rng.permutation(n)] for share in shares) / n
            assert objective(first, second, plan) >= value - 1e-12

    @pytest.mark.parametrize("n", [4, 7, 16, 33])
    def test_equal_geometries(self, n):
        """SR in another order, scaled and moved, has LQ's distances."""
        lq = photos(n, 8) if n <= 7 else random(n, 40, 0)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(n))
        assert float(gromov_wasserstein(lq, 3 * lq[order] + 0.2)) == pytest.approx(0, abs=1e-12)
        assert float(gromov_wasserstein(lq.float(), 3 * lq[order].float() + 0.2)) == pytest.approx(0, abs=1e-9)
        if lq.dim() == 4:
            assert float(gromov_wasserstein(lq, F.interpolate(lq, scale_factor=4))) == pytest.approx(0, abs=1e-12)

    def test_other_geometries(self):
        lq = photos(6, 8)
        assert float(gromov_wasserstein(lq, random(6, 3, 0))) > 0.01

    def test_gradcheck(self):
        """With the plan fixed: small steps do not change it, and the maximum is a constant."""
        lq = photos(4, 4)
        sr = noisy(photos(4, 6), 0.3)
        order = best_permutation(image_distances(lq), image_distances(sr))
        largest = torch.cdist(sr.flatten(1), sr.flatten(1)).max()
        first = image_distances(lq)

        def with_plan(x: torch.Tensor) -> torch.Tensor:
            pairs = (x.flatten(1)[:, None] - x.flatten(1)[None]).square().sum(-1)
            off = ~torch.eye(4, dtype=torch.bool)
            second = torch.zeros(4, 4, dtype=torch.float64).masked_scatter(off, pairs[off].sqrt()) / largest
            return (first - second[order][:, order]).square().mean()

        sr.requires_grad_()
        value = gromov_wasserstein(lq, sr)
        torch.testing.assert_close(value, with_plan(sr))
        assert torch.autograd.gradcheck(with_plan, sr)
        gradients = [torch.autograd.grad(result, sr)[0] for result in (value, with_plan(sr))]
        assert gradients[0].abs().max() > 1e-6
        torch.testing.assert_close(*gradients)

    def test_gradient_only_into_sr(self):
        lq, sr = photos(4, 8).requires_grad_(), noisy(photos(4), 0.3).requires_grad_()
        gromov_wasserstein(lq, sr).backward()
        assert lq.grad is None
        assert (sr.grad.flatten(1).abs().sum(dim=1) > 0).all()

    def test_equal_images(self):
        """Distances of 0 have a finite gradient."""
        sr = torch.cat([photos(3, 8), photos(1, 8)]).requires_grad_()
        gromov_wasserstein(random(4, 9, 0), sr).backward()
        assert sr.grad.isfinite().all()
        gray = torch.full((4, 3, 8, 8), 0.5, requires_grad=True)
        value = gromov_wasserstein(random(4, 9, 0), gray)
        value.backward()
        assert value.isfinite()
        assert gray.grad.isfinite().all()

    def test_descends(self):
        lq = photos(4, 4)
        sr = noisy(lq, 0.4).requires_grad_()
        begun = gromov_wasserstein(lq, sr).item()
        for _ in range(50):
            (gradient,) = torch.autograd.grad(gromov_wasserstein(lq, sr), sr)
            sr = (sr - 5 * gradient).detach().requires_grad_()
        assert gromov_wasserstein(lq, sr).item() < 0.3 * begun

    def test_reads_no_value(self):
        """Meta tensors have none."""
        value = gromov_wasserstein(torch.zeros(5, 3, 4, 4, device="meta"), torch.zeros(5, 3, 8, 8, device="meta"))
        assert value.shape == ()

    @pytest.mark.gpu
    def test_waits_for_no_value(self):
        lq, sr = photos(6, 8).float().cuda(), noisy(photos(6), 0.3).float().cuda().requires_grad_()
        torch.cuda.set_sync_debug_mode("error")
        try:
            value = gromov_wasserstein(lq, sr)
            value.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        expected = gromov_wasserstein(lq.double().cpu(), sr.detach().double().cpu())
        assert value.item() == pytest.approx(float(expected), rel=1e-3)

    def test_autocast(self):
        lq, sr = photos(5, 8).float(), noisy(photos(5), 0.3).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = gromov_wasserstein(lq, sr)
        torch.testing.assert_close(inside, gromov_wasserstein(lq, sr), rtol=0, atol=0)
        assert gromov_wasserstein(lq.bfloat16(), sr.bfloat16()).dtype == torch.float32

    @pytest.mark.parametrize("n", [1, 3])
    def test_small_batch(self, n):
        with pytest.raises(ValueError, match=f"needs a batch of at least 4 images, got {n}$"):
            gromov_wasserstein(torch.zeros(n, 3, 4, 4), torch.zeros(n, 3, 8, 8))

    def test_other_batches(self):
        with pytest.raises(ValueError, match="expected as many images of LQ as of SR, got 5 and 4"):
            gromov_wasserstein(torch.zeros(5, 3, 4, 4), torch.zeros(4, 3, 8, 8))

    def test_python_optimal_transport(self):
        """Its conditional gradient finds a plan that is not better."""
        ot = pytest.importorskip("ot")
        lq, sr = photos(6, 8), noisy(photos(6), 0.3)
        first, second = matrices(lq, sr)
        share = np.full(6, 1 / 6)
        plan, log = ot.gromov.gromov_wasserstein(first, second, share, share, "square_loss", log=True)
        assert float(log["gw_dist"]) == pytest.approx(objective(first, second, np.asarray(plan)), rel=1e-6)
        assert float(gromov_wasserstein(lq, sr)) <= float(log["gw_dist"]) + 1e-9
