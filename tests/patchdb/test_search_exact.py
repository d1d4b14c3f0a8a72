from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gramgan_plugin.patchdb import curve
from gramgan_plugin.patchdb.curve import lay_down, principal_axes
from gramgan_plugin.patchdb.faiss_index import FaissFlat
from gramgan_plugin.patchdb.kdtree import TreeSearch
from gramgan_plugin.patchdb.neighbours import Rows, search_exactly
from gramgan_plugin.patchdb.torch_search import GROUP, TorchSearch, smallest

SEARCHES = (TreeSearch, TorchSearch, FaissFlat)


def brute_force(queries: NDArray, rows: NDArray) -> tuple[NDArray, NDArray]:
    """All squared distances in float64, (M, N), and the rows by distance, equal ones by number."""
    squared = np.zeros((len(queries), len(rows)))
    for d in range(rows.shape[1]):
        squared += (queries[:, None, d].astype(np.float64) - rows[None, :, d].astype(np.float64)) ** 2
    return squared, np.argsort(squared, axis=1, kind="stable")


def check(search, queries: NDArray, rows: NDArray, k: int, ties: bool = False) -> None:
    found = search(Rows(rows)).search(torch.from_numpy(queries), k)
    squared, order = brute_force(queries, rows)
    index = found.rows.numpy()
    expected = np.take_along_axis(squared, order[:, :k], 1)
    mean = rows.mean(axis=0, dtype=np.float64)
    scale = float(np.abs(rows - mean).max() + np.abs(queries - mean).max()) ** 2
    assert found.squared.shape == index.shape == (len(queries), k)
    np.testing.assert_allclose(found.squared.numpy(), expected, rtol=1e-9, atol=1e-13 * scale)
    np.testing.assert_allclose(np.take_along_axis(squared, index, 1), expected, rtol=1e-9, atol=1e-13 * scale)
    assert all(len(set(row)) == k for row in index.tolist())
    if not ties:
        assert np.array_equal(index, order[:, :k])


def grams(count: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    """Points as photos' Gram vectors lie: along a line, close to a plane, never around the origin."""
    rng = np.random.default_rng(seed)
    spread = 0.5 ** np.arange(dimensions) @ np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    return (rng.normal(size=(count, dimensions)) * 0.01 + rng.uniform(size=(count, 1)) * spread + 1).astype(np.float32)


@pytest.mark.parametrize("search", SEARCHES)
class TestExactSearches:
    @pytest.mark.parametrize(
        ("count", "dimensions", "k"), [(1, 6, 1), (7, 1, 7), (500, 6, 1), (3000, 6, 5), (400, 40, 3)]
    )
    def test_feature(self, search, count, dimensions, k):
        check(search, grams(200, dimensions, seed=1), grams(count, dimensions), k)

    def test_far_from_the_origin(self, search):
        # Expanded squares in float32 get most of these wrong.
        check(search, grams(300, 6, seed=1) * 1e-3 + 1, grams(2000, 6) * 1e-3 + 1, 2, ties=True)

    def test_lattice_far_from_the_origin(self, search):
        # Steps of float32's last digit: what is rounded on the way to the centre would change which are near.
        rng, step = np.random.default_rng(0), 2.0**-14
        rows, queries = (1000 + step * rng.integers(0, 10, (count, 6)) for count in (3000, 200))
        check(search, queries.astype(np.float32), rows.astype(np.float32), 3, ties=True)

    def test_crowds_far_from_the_centre(self, search):
        # More rows than are looked up differ from the query by a few of the last digits; float32 cannot order them.
        rng = np.random.default_rng(0)
        place = rng.uniform(20, 30, 64).astype(np.float32)
        rows = np.concatenate([place + 2.0**-16 * rng.integers(0, 2, (800, 64)), rng.normal(-29.3, 1, (900, 64))])
        queries = place + 2.0**-16 * rng.integers(0, 2, (50, 64))
        rows, queries = rows.astype(np.float32), queries.astype(np.float32)
        squared, _ = brute_force(queries, rows)
        found = search(Rows(rows)).search(torch.from_numpy(queries), 1)
        assert np.array_equal(np.take_along_axis(squared, found.rows.numpy(), 1)[:, 0], squared.min(axis=1))

    def test_far_from_the_centre(self, search):
        # Two clouds: the mean is no help.
        rows = np.concatenate([grams(500, 6) * 1e-2, grams(500, 6) * 1e-2 + 30])
        check(search, rows[::5] + np.float32(1e-4), rows, 3, ties=True)

    def test_outlier(self, search):
        rows = grams(1000, 6)
        rows[17] = 1e6
        check(search, np.concatenate([grams(50, 6, seed=1), rows[17:18]]), rows, 2, ties=True)

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        count=st.integers(1, 700),
        dimensions=st.integers(1, 9),
        k=st.integers(1, 9),
        levels=st.sampled_from([None, 1, 2, 3, 255]),
    )
    def test_any_points(self, search, seed, count, dimensions, k, levels):
        rng = np.random.default_rng(seed)
        rows, queries = rng.normal(size=(count, dimensions)), rng.normal(size=(20, dimensions))
        if levels is not None:  # many equal points and equal distances
            rows, queries = np.round(rows * levels), np.round(queries * levels) / 2
        check(search, queries.astype(np.float32), rows.astype(np.float32), min(k, count), ties=levels is not None)

    def test_equal_rows(self, search):
        rows = grams(300, 6)[np.random.default_rng(0).integers(0, 300, 900)]  # about three of each
        rows[rows == 0] = -0.0
        found = search(Rows(rows)).search(torch.from_numpy(rows), 1).rows[:, 0].numpy()
        first = [np.flatnonzero((rows == row).all(axis=1))[0] for row in rows]
        assert np.array_equal(found, first)
        check(search, rows[:100], rows, 8)

    def test_all_rows_equal(self, search):
        found = search(Rows(np.ones((200, 6), np.float32))).search(torch.zeros(3, 6), 4)
        torch.testing.assert_close(found.squared, torch.full((3, 4), 6.0, dtype=torch.float64))
        assert all(len(set(row)) == 4 for row in found.rows.tolist())

    def test_no_query(self, search):
        found = search(Rows(grams(50, 6))).search(torch.zeros(0, 6), 3)
        assert found.rows.shape == found.squared.shape == (0, 3)

    def test_float64_queries(self, search):
        rows = np.array([[0.0], [1.0]], np.float32)
        query = torch.tensor([[0.5 + 1e-12]], dtype=torch.float64)  # 0.5 in float32
        assert search(Rows(rows)).search(query, 1).rows.tolist() == [[1]]


class TestTreeSearch:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_threads(self, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            check(TreeSearch, grams(5000, 6, seed=1), grams(500, 6), 1)
        finally:
            torch.set_num_threads(before)

    def test_members(self):
        rows = Rows(grams(1000, 6)[np.random.default_rng(0).integers(0, 900, 1000)])
        members, starts = lay_down(rows, *principal_axes(rows))
        assert sorted(members.tolist()) == list(range(1000))
        assert starts is not None
        groups = [members[a:b] for a, b in pairwise(starts)]
        assert starts[-1] == 1000
        assert len(groups) == len(np.unique(rows.array, axis=0))
        for group in groups:
            assert (rows.array[group] == rows.array[group[0]]).all()
            assert (np.diff(group) > 0).all()

    def test_places_of_a_grid(self):
        side = np.arange(4, dtype=np.float32)
        rows = Rows(np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3))
        places = curve._places(rows, np.zeros(3), np.eye(3))
        assert len(np.unique(places)) == 64
        # The halves of the third axis, then of the second, then of the first.
        x, y, z = rows.array[np.argsort(places)].T >= 2
        assert np.array_equal(z, np.arange(64) >= 32)
        assert np.array_equal(y, np.arange(64) % 32 >= 16)
        assert np.array_equal(x, np.arange(64) % 16 >= 8)

    def test_neighbours_lie_together(self):
        rows = Rows(grams(20000, 6))
        members, starts = lay_down(rows, *principal_axes(rows))
        assert starts is None
        steps = np.linalg.norm(np.diff(rows.array[members], axis=0), axis=1).mean()
        assert steps < 0.4 * np.linalg.norm(np.diff(rows.array, axis=0), axis=1).mean()


class TestTorchSearch:
    @pytest.mark.parametrize("block", [(1, GROUP), (7, 2 * GROUP), (2**10, 2**17)])
    def test_blocks(self, block, monkeypatch):
        monkeypatch.setattr("gramgan_plugin.patchdb.torch_search.CPU_BLOCK", block)
        check(TorchSearch, grams(50, 6, seed=1), grams(1000, 6), 4)

    def test_precision_is_given_back(self):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                check(TorchSearch, grams(50, 40, seed=1), grams(1000, 40), 4)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision(before)

    def test_precision_in_between(self, monkeypatch):
        seen = []
        original = TorchSearch.approximately

        def spy(self, *arguments):
            seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
            return original(self, *arguments)

        monkeypatch.setattr(TorchSearch, "approximately", lambda self, *a, **k: spy(self, *a, *k.values()))
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                TorchSearch(Rows(grams(100, 6))).search(torch.zeros(3, 6), 1)
        finally:
            torch.set_float32_matmul_precision(before)
        assert seen[0] == ("highest", False)

    def test_error_of_expanded_squares_is_allowed_for(self):
        # Squared distances from 1 are 1e-5, 1.01e-5, ...; the first pass has the first row 1.5e-6 too far away, which
        # is within the error of float32 for numbers around 1, and outside what it looks up.
        rows = Rows((1 + np.sqrt(1e-5 + 1e-7 * np.arange(100)))[:, None].astype(np.float32))
        queries, centre = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        exact = TorchSearch(rows)

        def wrong(queries, count):
            value, index = exact.approximately(queries, rows.count, torch.float64)
            value, place = (value + 1.5e-6 * (index == 0)).topk(count, dim=1, largest=False)
            return value, index.gather(1, place)

        assert search_exactly([(wrong, torch.float32)], queries, centre, rows, 1).rows.tolist() == [[1]]
        passes = [(wrong, torch.float32), *exact.passes()[1:]]
        assert search_exactly(passes, queries, centre, rows, 1).rows.tolist() == [[0]]

    def test_few_queries_need_the_second_pass(self, monkeypatch):
        asked = []
        search = TorchSearch(Rows(grams(5000, 6)))
        original = TorchSearch.approximately

        def counted(self, queries, count, dtype):
            asked.append((dtype, len(queries)))
            return original(self, queries, count, dtype)

        monkeypatch.setattr(TorchSearch, "approximately", counted)
        search.search(torch.from_numpy(grams(1000, 6, seed=1)), 1)
        assert asked[0] == (torch.float32, 1000)
        assert sum(number for dtype, number in asked if dtype == torch.float64) < 50

    @given(seed=st.integers(0, 2**31), groups=st.integers(1, 5), count=st.integers(1, 20))
    @settings(max_examples=30, deadline=None)
    def test_smallest(self, seed, groups, count):
        values = torch.randint(0, 1000, (4, groups * GROUP), generator=torch.Generator().manual_seed(seed)).float()
        value, place = smallest(values, count)
        assert torch.equal(value, values.sort(dim=1).values[:, :count])
        assert torch.equal(values.gather(1, place), value)


@pytest.mark.gpu
class TestOnGpu:
    def test_feature(self):
        queries, rows = grams(20000, 6, seed=1), grams(300000, 6)
        search = TorchSearch(Rows(rows, torch.device("cuda", 0)))
        found = search.search(torch.from_numpy(queries).cuda(), 3)
        expected = TreeSearch(Rows(rows)).search(torch.from_numpy(queries), 3)
        assert torch.equal(found.rows.cpu(), expected.rows)
        torch.testing.assert_close(found.squared.cpu(), expected.squared, rtol=1e-9, atol=1e-13)
