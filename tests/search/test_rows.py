import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gramgan_plugin.search import exact
from gramgan_plugin.search.exact import ExactSearch
from gramgan_plugin.search.tree import TreeSearch

SEARCHES = (TreeSearch, ExactSearch)


def brute_force(queries: NDArray, rows: NDArray) -> tuple[NDArray, NDArray]:
    """All squared distances in float64, (M, N), and the rows by distance, equal ones by number."""
    squared = np.zeros((len(queries), len(rows)))
    for d in range(rows.shape[1]):
        squared += (queries[:, None, d].astype(np.float64) - rows[None, :, d].astype(np.float64)) ** 2
    return squared, np.argsort(squared, axis=1, kind="stable")


def check(search, queries: NDArray, rows: NDArray, k: int, ties: bool = False) -> None:
    found = search(torch.from_numpy(rows)).search(torch.from_numpy(queries), k)
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
        found = search(torch.from_numpy(rows)).search(torch.from_numpy(queries), 1)
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
        found = search(torch.from_numpy(rows)).search(torch.from_numpy(rows), 1).rows[:, 0].numpy()
        first = [np.flatnonzero((rows == row).all(axis=1))[0] for row in rows]
        assert np.array_equal(found, first)
        check(search, rows[:100], rows, 8)

    def test_all_rows_equal(self, search):
        found = search(torch.ones(200, 6)).search(torch.zeros(3, 6), 4)
        torch.testing.assert_close(found.squared, torch.full((3, 4), 6.0, dtype=torch.float64))
        assert all(len(set(row)) == 4 for row in found.rows.tolist())

    def test_no_query(self, search):
        found = search(torch.from_numpy(grams(50, 6))).search(torch.zeros(0, 6), 3)
        assert found.rows.shape == found.squared.shape == (0, 3)

    def test_float64_queries(self, search):
        rows = np.array([[0.0], [1.0]], np.float32)
        query = torch.tensor([[0.5 + 1e-12]], dtype=torch.float64)  # 0.5 in float32
        assert search(torch.from_numpy(rows)).search(query, 1).rows.tolist() == [[1]]


class TestTreeSearch:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_threads(self, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            check(TreeSearch, grams(5000, 6, seed=1), grams(500, 6), 1)
        finally:
            torch.set_num_threads(before)


class TestExactSearch:
    @pytest.mark.parametrize(("block", "rows"), [(1, 1), (900, 128), (2**20, 300)])
    @pytest.mark.parametrize("k", [1, 4])
    def test_blocks(self, block, rows, k, monkeypatch):
        monkeypatch.setattr(exact, "MOST_ROWS", rows)
        count = 100 if block == 1 else 1000
        check(lambda points: ExactSearch(points, block), grams(50, 6, seed=1), grams(count, 6), k)

    def test_precision_is_given_back(self):
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                check(ExactSearch, grams(50, 40, seed=1), grams(1000, 40), 4)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision(before)

    def test_precision_by_torchs_newer_options(self):
        """They have no common value that could be read; the search is exact all the same."""
        matmul = torch.backends.cuda.matmul
        if not hasattr(matmul, "fp32_precision"):
            pytest.skip("this torch has only the older ones")
        before = matmul.fp32_precision
        matmul.fp32_precision = "tf32"
        try:
            check(ExactSearch, grams(50, 40, seed=1), grams(1000, 40), 4)
            assert matmul.fp32_precision == "tf32"
        finally:
            matmul.fp32_precision = before

    def test_precision_in_between(self, monkeypatch):
        seen = []
        original = ExactSearch._by_products

        def spy(self, *arguments):
            seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
            return original(self, *arguments)

        monkeypatch.setattr(ExactSearch, "_by_products", spy)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                ExactSearch(torch.from_numpy(grams(100, 6))).search(torch.zeros(3, 6), 1)
        finally:
            torch.set_float32_matmul_precision(before)
        assert seen[0] == ("highest", False)

    def test_few_queries_need_float64(self, monkeypatch):
        asked = []
        original = ExactSearch._measured
        monkeypatch.setattr(
            ExactSearch, "_measured", lambda self, q, *rest: asked.append(len(q)) or original(self, q, *rest)
        )
        ExactSearch(torch.from_numpy(grams(5000, 6))).search(torch.from_numpy(grams(1000, 6, seed=1)), 1)
        assert sum(asked) < 50

    @given(seed=st.integers(0, 2**31), dimensions=st.integers(1, 300), far=st.sampled_from([0.0, 1.0, 1e4]))
    @settings(max_examples=30, deadline=None)
    def test_the_error_of_products_is_bounded(self, seed, dimensions, far):
        rng = np.random.default_rng(seed)
        rows, queries = (torch.from_numpy((rng.normal(size=(40, dimensions)) + far).astype(np.float32)) for _ in "ab")
        search = ExactSearch(rows)
        distance = (queries[:, None].double() - rows.double()).square().sum(dim=2)
        for dtype in (torch.float32, torch.float64):
            ((_, factors),) = search._blocks(dtype, nearest_only=False)
            q = search._factors(queries, dtype)
            length = q[:, :-1].double().norm(dim=1, keepdim=True)
            off = ((q @ factors.T).double() - (distance - length.square()) / 2).abs()
            assert (off <= exact._error(length, distance.sqrt(), factors)).all()


@pytest.mark.gpu
class TestOnGpu:
    def test_feature(self):
        queries, rows = grams(20000, 6, seed=1), grams(300000, 6)
        search = ExactSearch(torch.from_numpy(rows).cuda())
        found = search.search(torch.from_numpy(queries).cuda(), 3)
        expected = TreeSearch(torch.from_numpy(rows)).search(torch.from_numpy(queries), 3)
        assert torch.equal(found.rows.cpu(), expected.rows)
        torch.testing.assert_close(found.squared.cpu(), expected.squared, rtol=1e-9, atol=1e-13)
