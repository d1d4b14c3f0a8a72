import sys

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from gramgan_plugin.functional import Neighbourhood, gram_vectors, nearest, nearest_candidates


def random_points(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


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
        original = nearest._squared_distances

        def spy(*args):
            result = original(*args)
            sizes.append(result.numel())
            return result

        monkeypatch.setattr(nearest, "_squared_distances", spy)
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
        assert queries.shape[1] * candidates.shape[1] >= nearest.TREE_DISTANCES
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
        tree = nearest._search_tree
        monkeypatch.setattr(nearest, "_search_tree", lambda *pair: called.append(len(pair[0])) or tree(*pair))
        many, few = random_points(2, 600, 6), random_points(2, 10, 6)
        assert torch.equal(nearest_candidates(many, many), torch.arange(600).expand(2, -1))
        assert called == [600, 600]
        centres = torch.zeros(600, 2, dtype=torch.float64)
        nearest_candidates(few, few)
        nearest_candidates(many[:0], many[:0])
        nearest_candidates(random_points(1, 600, 9), random_points(1, 600, 9))
        nearest_candidates(many[:1], many[:1], allowed=Neighbourhood(centres, centres, radius=1.0))
        assert len(called) == 2

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
