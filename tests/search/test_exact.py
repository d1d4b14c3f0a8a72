import sys
from functools import partial

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from torch.utils._python_dispatch import TorchDispatchMode

from gramgan_plugin.functional import (
    TextureOptions,
    choose_targets,
    describe_patches,
    gram_vectors,
    random_theta,
    texture,
)
from gramgan_plugin.search import differences, exact, tree
from gramgan_plugin.search.differences import Neighbourhood, search_by_differences
from gramgan_plugin.search.exact import nearest_candidates, nearest_several, search_by_products, search_by_trees
from gramgan_plugin.search.tree import TreeSearch, first_equal


def random_points(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Operations(TorchDispatchMode):
    """Which operations ran, and the number of entries of the largest tensor that one gave."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, torch.Tensor):
                self.largest = max(self.largest, item.numel())
        return result


class TestNearestCandidates:
    def test_smoke(self):
        assert nearest_candidates(torch.zeros(2, 3, 6), torch.zeros(2, 5, 6)).tolist() == [[0] * 3] * 2

    def test_cardinality(self):
        index = nearest_candidates(random_points(2, 7, 4), random_points(2, 9, 4))
        assert index.shape == (2, 7)
        assert index.dtype == torch.int64
        assert nearest_candidates(torch.zeros(1, 0, 4), torch.zeros(1, 3, 4)).shape == (1, 0)

    def test_feature(self):
        queries, candidates = random_points(2, 300, 6), random_points(2, 700, 6, seed=1)
        index = nearest_candidates(queries, candidates, chunk_size=1000)
        for n in range(2):
            _, expected = cKDTree(candidates[n].double().numpy()).query(queries[n].double().numpy())
            assert np.array_equal(index[n].numpy(), expected)

    def test_far_from_the_origin(self):
        # Expanding the squares in float32 gets about half of these wrong.
        queries, candidates = (
            random_points(1, 200, 6) * 1e-2 + 10,
            random_points(1, 500, 6, seed=1) * 1e-2 + 10,
        )
        _, expected = cKDTree(candidates[0].double().numpy()).query(queries[0].double().numpy())
        assert np.mean(nearest_candidates(queries, candidates)[0].numpy() == expected) == 1

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        q=st.integers(1, 40),
        k=st.integers(1, 60),
        d=st.integers(1, 7),
        chunk_size=st.integers(1, 3000),
        ties=st.booleans(),
    )
    def test_independent_of_chunk_size(self, seed, q, k, d, chunk_size, ties):
        queries, candidates = random_points(1, q, d, seed=seed), random_points(1, k, d, seed=seed + 1)
        if ties:  # a few whole numbers: many equal distances, all exact
            queries, candidates = queries.round(), candidates.round()
        index = nearest_candidates(queries, candidates, chunk_size)
        assert torch.equal(index, nearest_candidates(queries, candidates))
        if ties:
            distance = ((queries[0, :, None] - candidates[0, None]) ** 2).sum(-1).numpy()
            assert np.array_equal(index[0].numpy(), distance.argmin(1))  # numpy's argmin is the first

    def test_equal_candidates_at_any_place(self):
        # The same vector many times over: the first must win wherever it falls in a vectorised block.
        candidate = random_points(1, 1, 6).expand(1, 103, 6)
        queries = random_points(1, 50, 6, seed=1)
        for chunk_size in (1, 7, 64, 103, 10**6):
            assert nearest_candidates(queries, candidate, chunk_size).max() == 0

    @pytest.mark.parametrize("chunk_size", [1, 10, 2**20])
    def test_memory_is_bounded(self, chunk_size, monkeypatch):
        sizes = []
        original = differences._squared_distances

        def spy(*args):
            result = original(*args)
            sizes.append(result.numel())
            return result

        monkeypatch.setattr(differences, "_squared_distances", spy)
        nearest_candidates(random_points(1, 21, 3), random_points(1, 17, 3), chunk_size)
        assert max(sizes) <= chunk_size
        assert sum(sizes) == 21 * 17

    @pytest.mark.parametrize("chunk_size", [5, 2**20])
    def test_allowed(self, chunk_size):
        queries, candidates = random_points(1, 12, 3), random_points(1, 20, 3, seed=1)
        centres = random_points(12, 2, dtype=torch.float64), random_points(20, 2, seed=2, dtype=torch.float64)
        index = nearest_candidates(queries, candidates, chunk_size, Neighbourhood(*centres, radius=1.5))
        for i in range(12):
            distances = [
                float(((queries[0, i] - candidates[0, j]) ** 2).sum())
                if max(abs(centres[0][i, 0] - centres[1][j, 0]), abs(centres[0][i, 1] - centres[1][j, 1])) <= 1.5
                else np.inf
                for j in range(20)
            ]
            assert index[0, i] == int(np.argmin(distances))

    def test_no_gradient(self):
        assert not nearest_candidates(torch.zeros(1, 2, 3, requires_grad=True), torch.zeros(1, 2, 3)).requires_grad

    def test_dtype(self):
        queries, candidates = random_points(1, 30, 6), random_points(1, 40, 6, seed=1)
        low = nearest_candidates(queries.bfloat16(), candidates.bfloat16())
        assert torch.equal(low, nearest_candidates(queries.bfloat16().double(), candidates.bfloat16().double()))

    def test_autocast(self):
        queries, candidates = random_points(1, 30, 6), random_points(1, 40, 6, seed=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = nearest_candidates(queries, candidates)
        assert torch.equal(inside, nearest_candidates(queries, candidates))

    @pytest.mark.parametrize(
        ("q", "k", "chunk_size", "message"),
        [
            ((2, 3), (2, 3), 1, "expected queries"),
            ((1, 2, 3), (1, 2, 4), 1, "expected queries"),
            ((1, 2, 3), (2, 2, 3), 1, "expected queries"),
            ((1, 2, 3), (1, 0, 3), 1, "no candidate"),
            ((1, 2, 3), (1, 2, 3), 0, "chunk_size must be at least 1"),
        ],
    )
    def test_exception(self, q, k, chunk_size, message):
        with pytest.raises(ValueError, match=message):
            nearest_candidates(torch.zeros(q), torch.zeros(k), chunk_size)


def brute_force(queries: torch.Tensor, candidates: torch.Tensor, allowed: np.ndarray | None = None) -> np.ndarray:
    """All squared distances in float64, (N, Q, K), a query at a time."""
    x, y = queries.double().numpy(), candidates.double().numpy()
    squared = np.stack([[np.square(y[n] - point).sum(axis=1) for point in x[n]] for n in range(len(x))])
    return squared if allowed is None else np.where(allowed, squared, np.inf)


def photo_vectors(name: str, by: str = "gram", center: bool = False, size: int = 96, channels: int = 3):
    """Queries half way between a blurred photo and the photo, and its patches; with a flat region of equal patches."""
    photo = torch.from_numpy(getattr(skimage.data, name)()[:size, 200 : 200 + size].copy())
    photo = photo.permute(2, 0, 1)[None].float() / 255
    photo[..., : size // 3, :] = 0.5
    sr = torch.nn.functional.avg_pool2d(photo, 3, 1, 1)
    x, y = (describe_patches(image, 4, by, center=center) for image in (sr, photo))
    return (x + y) / 2, y


SEARCHES = {
    "trees": lambda q, c, k, chunk: search_by_trees(q, c, k),
    "products": search_by_products,
    "differences": search_by_differences,
    "products without waiting": lambda q, c, k, chunk: search_by_products(q, c, k, chunk, wait=False),
}


@pytest.mark.parametrize("search", SEARCHES)
class TestEachSearch:
    """All searches, forced, against all distances in float64."""

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        n=st.integers(1, 3),
        q=st.integers(1, 30),
        c=st.integers(1, 50),
        d=st.integers(1, 30),
        k=st.integers(1, 4),
        far=st.sampled_from([0.0, 1.0, 100.0]),
        chunk_size=st.integers(1, 2000),
        dtype=st.sampled_from([torch.float32, torch.float64]),
    )
    def test_random_points(self, search, seed, n, q, c, d, k, far, chunk_size, dtype):
        queries = random_points(n, q, d, seed=seed, dtype=dtype) + far
        candidates = random_points(n, c, d, seed=seed + 1, dtype=dtype) + far
        squared, index = SEARCHES[search](queries, candidates, k, chunk_size)
        expected = brute_force(queries, candidates)
        order = np.argsort(expected, axis=2)[:, :, :k]
        few = min(k, c)
        assert squared.shape == index.shape == (n, q, k)
        assert np.array_equal(index[..., :few].numpy(), order)
        np.testing.assert_allclose(squared[..., :few], np.take_along_axis(expected, order, 2), rtol=1e-5)
        assert (squared[..., few:] == float("inf")).all()
        assert (index[..., few:] == 0).all()

    @pytest.mark.parametrize("k", [1, 3])
    @pytest.mark.parametrize(("by", "center"), [("gram", False), ("gram", True), ("pixel", False)])
    @pytest.mark.parametrize("name", ["astronaut", "chelsea"])
    def test_photos(self, search, name, by, center, k):
        """Nothing is nearer than what is found; float32 differences may take what is equally near to their digits."""
        queries, candidates = photo_vectors(name, by, center)
        squared, index = SEARCHES[search](queries, candidates, k, 2**16)
        distances = brute_force(queries, candidates)
        best = np.sort(distances, axis=2)[:, :, :k]
        found = np.take_along_axis(distances, index.numpy(), 2)
        if search in ("trees", "products"):
            assert np.array_equal(found, best), "to the last bit"
        else:
            np.testing.assert_allclose(found, best, rtol=1e-6, atol=1e-14)
        assert all(len(set(row)) == k for row in index[0].tolist())
        np.testing.assert_allclose(squared.numpy(), best, rtol=1e-4, atol=1e-12)

    def test_equal_candidates(self, search):
        candidates = random_points(1, 40, 9).repeat(1, 5, 1)
        queries = random_points(1, 60, 9, seed=1)
        index = SEARCHES[search](queries, candidates, 1, 500)[1]
        assert np.array_equal(index[0, :, 0].numpy(), brute_force(queries, candidates)[0].argmin(axis=1))
        assert index.max() < 40


class TestAsOnAGpu:
    """What is done on a GPU, where nothing waits for values, done on the CPU."""

    @pytest.mark.parametrize("k", [1, 3])
    @pytest.mark.parametrize(("by", "center"), [("gram", False), ("gram", True), ("pixel", False)])
    def test_feature(self, by, center, k):
        queries, candidates = photo_vectors("astronaut", by, center)
        with Operations() as operations:
            index = nearest_several(queries, candidates, k, 2**16, wait=False)[1]
        distances = brute_force(queries, candidates)
        best = np.sort(distances, axis=2)[:, :, :k]
        np.testing.assert_allclose(np.take_along_axis(distances, index.numpy(), 2), best, rtol=1e-6, atol=1e-14)
        assert operations.largest <= 2 * 2**16 < queries.shape[1] * candidates.shape[1]
        waiting = {"nonzero", "_local_scalar_dense", "is_nonzero", "masked_select", "unique_consecutive", "equal"}
        assert not waiting & operations.names, "nothing waits for a value"

    def test_the_whole_choice(self, monkeypatch):
        monkeypatch.setattr(texture, "nearest_several", partial(nearest_several, wait=False))
        photo = torch.from_numpy(skimage.data.chelsea()[:96, 200:296].copy()).permute(2, 0, 1)[None].float() / 255
        sr = torch.nn.functional.avg_pool2d(photo, 5, 1, 2)
        theta = random_theta(1, 1, 0.003, (0,))
        with Operations() as operations:
            targets = choose_targets(
                sr, photo, TextureOptions(top_k=2), theta=theta, draw=torch.rand(1, 576), measure=True
            )
            targets.statistics()
        assert "_local_scalar_dense" not in operations.names
        assert "nonzero" not in operations.names


class TestSearchByProducts:
    def test_near_duplicates(self):
        """Candidates far closer to each other than the rounding of a product in float32: all are measured again."""
        base = random_points(1, 1, 20) * 3
        candidates = torch.cat([base, -base], dim=1).repeat(1, 150, 1) + 1e-5 * random_points(1, 300, 20, seed=1)
        queries = base + 1e-5 * random_points(1, 50, 20, seed=2)
        expected = brute_force(queries, candidates)[0].argmin(axis=1)
        product = -(queries[0] @ candidates[0].T) + candidates[0].square().sum(dim=1) / 2
        assert np.mean(product.argmin(dim=1).numpy() == expected) < 0.5, "products alone cannot tell them apart"
        assert np.array_equal(search_by_products(queries, candidates, 1, 2**20)[1][0, :, 0].numpy(), expected)

    @pytest.mark.parametrize("k", [1, 3])
    def test_products_of_few_digits(self, k, monkeypatch):
        """Such as bfloat16's, which torch may be set to compute with: the error shows, and float64 takes over."""
        original, seen = torch.mm, []

        def mm(a, b, *, out):
            seen.append(out.dtype)
            if out.dtype == torch.float32:
                return out.copy_((a.bfloat16() @ b.bfloat16()).float())
            return original(a, b, out=out)

        monkeypatch.setattr(torch, "mm", mm)
        queries, candidates = photo_vectors("chelsea", "pixel")
        found = search_by_products(queries, candidates, k, 2**16)[1]
        assert {torch.float32, torch.float64} == set(seen)
        distances = brute_force(queries, candidates)
        assert np.array_equal(np.take_along_axis(distances, found.numpy(), 2), np.sort(distances, axis=2)[:, :, :k])

    def test_memory_is_bounded(self, monkeypatch):
        """No tensor has as many entries as there are pairs of queries and candidates."""
        queries, candidates = random_points(1, 2500, 27), random_points(1, 2500, 27, seed=1)
        with Operations() as operations:
            search_by_products(queries, candidates, 1, 2**22)
        assert operations.largest <= 2**21
        flat = torch.ones(1, 2500, 27)
        with Operations() as operations:
            assert search_by_products(flat, flat, 1, 2**22)[1].max() == 0
        assert operations.largest <= 2500 * 28, "equal candidates are measured once"


class TestSearchAllowed:
    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        n=st.integers(1, 3),
        rows=st.integers(1, 5),
        columns=st.integers(1, 5),
        k=st.integers(1, 3),
        radius=st.floats(0, 4),
        chunk_size=st.integers(1, 500),
    )
    def test_feature(self, seed, n, rows, columns, k, radius, chunk_size):
        grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
        own = torch.cat([grid, 2 * grid + 0.5, random_points(5, 2, seed=seed).double() * 3])
        queries, candidates = random_points(n, len(grid), 6, seed=seed), random_points(n, len(own), 6, seed=seed + 1)
        squared, index = nearest_several(queries, candidates, k, chunk_size, Neighbourhood(grid, own, radius))
        near = (grid[:, None] - own).abs().amax(dim=2).numpy() <= radius * (1 + 1e-9)
        expected = brute_force(queries, candidates, near[None])
        best = np.pad(np.sort(expected, axis=2), ((0, 0), (0, 0), (0, k)), constant_values=np.inf)[:, :, :k]
        np.testing.assert_allclose(squared.numpy(), best, rtol=1e-5)
        found = np.take_along_axis(expected, index.numpy(), 2)
        there = np.isfinite(best)
        assert np.array_equal(found[there], best[there])
        assert (index.numpy()[~there] == 0).all()

    def test_a_centre_that_rounding_puts_outside(self):
        centres = (
            torch.zeros(1, 2, dtype=torch.float64),
            torch.tensor([[9.0, 0.0], [0.1 + 0.2, 0.0]], dtype=torch.float64),
        )
        assert 0.1 + 0.2 > 0.3
        found = nearest_candidates(torch.zeros(1, 1, 3), torch.zeros(1, 2, 3), 9, Neighbourhood(*centres, 0.3))
        assert found.tolist() == [[1]]

    def test_little_is_measured(self, monkeypatch):
        """A row of patches is compared with the rows around it only."""
        sizes = []
        original = differences._squared_distances
        spy = lambda *args: sizes.append((result := original(*args)).numel()) or result  # noqa: E731
        monkeypatch.setattr(differences, "_squared_distances", spy)
        grid = torch.cartesian_prod(torch.arange(30), torch.arange(30)).double()
        points = random_points(1, 900, 6)
        assert torch.equal(
            nearest_candidates(points, points, allowed=Neighbourhood(grid, grid, 2))[0], torch.arange(900)
        )
        assert sum(sizes) <= 30 * 30 * 5 * 30


class TestTree:
    """The search by a k-d tree, which on a CPU takes the place of the exhaustive one for many points."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("center", [False, True])
    def test_feature(self, center, dtype):
        """Gram matrices of a photo, against float64 loops; equal candidates, which a flat region has, included."""
        photo = torch.from_numpy(skimage.data.chelsea()[:96, 200:296].copy()).permute(2, 0, 1)[None].to(dtype) / 255
        photo[..., :32, :] = 0.5
        sr = torch.nn.functional.avg_pool2d(photo, 3, 1, 1)
        described = [gram_vectors(image, 4, center=center) for image in (sr, photo)]
        queries, candidates = (described[0] + described[1]) / 2, described[1]
        assert queries.shape[1] * candidates.shape[1] >= exact.FEW_DISTANCES
        index = nearest_candidates(queries, candidates)[0].numpy()
        x, y = queries[0].double().numpy(), candidates[0].double().numpy()
        distances = np.stack([np.square(y - point).sum(axis=1) for point in x])
        best = distances.min(axis=1)
        assert np.array_equal(distances[np.arange(len(x)), index], best), "nothing is nearer, to the last bit"
        assert np.mean(index == distances.argmin(axis=1)) > 0.99, "the first of equal ones"
        flat = [i for i in index if np.array_equal(y[i], y[0])]
        assert len(flat) > 100
        assert set(flat) == {0}

    def test_which_search(self, monkeypatch):
        called = []
        for name in ("search_by_trees", "search_by_products", "search_by_differences", "search_allowed"):
            original = getattr(exact, name)
            monkeypatch.setattr(
                exact, name, lambda *args, name=name, original=original: called.append(name) or original(*args)
            )
        many, few = random_points(2, 600, 6), random_points(2, 10, 6)
        assert torch.equal(nearest_candidates(many, many), torch.arange(600).expand(2, -1))
        centres = torch.zeros(600, 2, dtype=torch.float64)
        nearest_candidates(few, few)
        assert nearest_candidates(many[:0], many[:0]).shape == (0, 600)
        nearest_candidates(random_points(1, 600, 9), random_points(1, 600, 9))
        nearest_candidates(many[:1], many[:1], allowed=Neighbourhood(centres, centres, radius=1.0))
        assert called == ["search_by_trees", "search_by_differences", "search_by_products", "search_allowed"]

    @pytest.mark.parametrize(
        ("threads", "n", "pools", "workers"), [(1, 3, 0, 1), (2, 3, 2, 1), (4, 2, 2, 2), (3, 1, 0, 3)]
    )
    def test_threads_are_torchs(self, threads, n, pools, workers, monkeypatch):
        opened, used = [], []
        pool, search = exact.ThreadPoolExecutor, TreeSearch.search
        monkeypatch.setattr(exact.torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(exact, "ThreadPoolExecutor", lambda size: opened.append(size) or pool(size))
        monkeypatch.setattr(TreeSearch, "search", lambda *args: used.append(args[3]) or search(*args))
        points = random_points(n, 600, 3)
        assert torch.equal(nearest_candidates(points, points), torch.arange(600).expand(n, -1))
        assert opened == [pools] * (pools > 0)
        assert used == [workers] * n

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_not_finite_is_left_to_the_exhaustive_search(self, value):
        queries, candidates = random_points(1, 600, 6), random_points(1, 600, 6)
        expected = nearest_candidates(queries, candidates)
        broken = queries.clone()
        broken[0, 5, 2] = value
        index = nearest_candidates(broken, candidates)
        assert torch.equal(index[0, 6:], expected[0, 6:])
        assert 0 <= index.min() <= index.max() < 600
        index = nearest_candidates(queries, broken)
        assert 0 <= index.min() <= index.max() < 600

    def test_zeros_of_either_sign(self):
        candidates = torch.zeros(1, 600, 2)
        candidates[0, ::2] *= -1
        assert nearest_candidates(torch.ones(1, 600, 2), candidates).max() == 0
        half = random_points(1, 300, 2)
        half[..., 0] = 0
        both = torch.cat([half, half * torch.tensor([-1.0, 1.0])], dim=1)
        assert torch.equal(nearest_candidates(both + torch.tensor([0.1, 0.0]), both)[0], torch.arange(300).repeat(2))

    def test_without_scipy(self, monkeypatch):
        queries, candidates = random_points(1, 600, 3), random_points(1, 700, 3)
        expected = nearest_candidates(queries, candidates)
        monkeypatch.setitem(sys.modules, "scipy.spatial", None)
        assert torch.equal(nearest_candidates(queries, candidates), expected)


class TestFirstEqual:
    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        count=st.integers(0, 300),
        d=st.integers(1, 4),
        values=st.integers(1, 5),
        dtype=st.sampled_from([np.float32, np.float64]),
    )
    def test_feature(self, seed, count, d, values, dtype):
        rows = np.random.default_rng(seed).integers(-values, values, (count, d)).astype(dtype)
        rows *= np.where(np.arange(count)[:, None] % 2, 1, -1)  # zeros of either sign
        seen: dict[tuple[float, ...], int] = {}
        expected = [seen.setdefault(tuple(row + 0.0), i) for i, row in enumerate(rows)]
        assert first_equal(rows).tolist() == expected

    def test_rows_that_share_a_place_in_the_table(self, monkeypatch):
        monkeypatch.setattr(tree, "SLOTS_PER_ROW", 1)
        rows = np.random.default_rng(0).integers(0, 9, (400, 3)).astype(np.float32)
        seen: dict[tuple[float, ...], int] = {}
        expected = [seen.setdefault(tuple(row), i) for i, row in enumerate(rows)]
        assert first_equal(rows).tolist() == expected
