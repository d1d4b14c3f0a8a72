import copy
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.errors import UserError
from gramgan_plugin.functional import gram_vectors
from gramgan_plugin.patchdb.database_manifest import Definition, Features
from gramgan_plugin.patchdb.search import PatchSearch, open_search
from gramgan_plugin.patchdb.store import Store, open_store
from gramgan_plugin.patchdb.writing import write_store
from gramgan_plugin.search.kinds import kind_of_search


def patches_of(image: np.ndarray) -> np.ndarray:
    rows, columns = (side // 4 for side in image.shape[:2])
    grid = image[: rows * 4, : columns * 4].reshape(rows, 4, columns, 4, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid.reshape(-1, 4, 4, 3))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """3,000 different patches of a photo."""
    folder = tmp_path_factory.mktemp("database") / "cat.patchdb"
    patches = np.unique(patches_of(skimage.data.chelsea()), axis=0)
    patches = patches[np.random.default_rng(0).permutation(len(patches))[:3000]]
    write_store(folder, [patches[:1000], patches[1000:]], 3000, Definition(patch_size=4))
    return open_store(folder)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """2,000 Gram vectors of 36 numbers, as if of features."""
    folder = tmp_path_factory.mktemp("wide") / "wide.patchdb"
    rng = np.random.default_rng(0)
    grams = np.abs(rng.normal(size=(2000, 36)) * 0.5 ** np.arange(36)).astype(np.float32)
    patches = rng.integers(0, 256, (2000, 4, 4, 3), np.uint8)
    definition = Definition(4, features=Features("conv1_2", "0" * 64, channels=8))
    write_store(folder, [patches], 2000, definition, [grams])
    return open_store(folder)


@pytest.fixture
def queries() -> torch.Tensor:
    """(576, 6): half-way between patches of another photo and of its blurred self, as in training."""
    photo = torch.from_numpy(skimage.data.astronaut()[100:196, 100:196]).permute(2, 0, 1)[None] / 255
    small = torch.nn.functional.interpolate(photo, scale_factor=0.25, mode="bicubic", antialias=True)
    blurred = torch.nn.functional.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)
    return (gram_vectors(photo, 4)[0] + gram_vectors(blurred, 4)[0]) / 2


def brute_force(queries: torch.Tensor, grams: np.ndarray, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    squared = (queries[:, None].double() - torch.from_numpy(np.array(grams)).double()).square().sum(-1)
    squared, order = squared.sort(dim=1, stable=True)
    return squared[:, :k], order[:, :k]


class TestPatchSearch:
    @pytest.mark.parametrize("index", ["auto", "tree", "exact"])
    @pytest.mark.parametrize("k", [1, 4])
    def test_feature(self, store, queries, index, k):
        squared, rows = PatchSearch(store, index).search(queries, k)
        expected, order = brute_force(queries, store.grams, k)
        assert squared.dtype == torch.float32
        assert rows.dtype == torch.int64
        assert torch.equal(rows, order)
        torch.testing.assert_close(squared.double(), expected, rtol=1e-6, atol=1e-14)

    def test_approximate(self, store, queries):
        squared, rows = PatchSearch(store, "hnsw").search(queries, 2)
        expected, order = brute_force(queries, store.grams, 2)
        assert (rows[:, 0] == order[:, 0]).double().mean() > 0.95
        right = (rows == order).all(dim=1)
        torch.testing.assert_close(squared[right].double(), expected[right], rtol=1e-6, atol=1e-14)
        assert (squared.diff(dim=1) >= 0).all()

    @pytest.mark.parametrize("index", ["auto", "tree", "exact"])
    def test_many_dimensions(self, wide, index):
        queries = torch.from_numpy(wide.grams[:200] * 1.01)
        _, rows = PatchSearch(wide, index).search(queries, 3)
        assert torch.equal(rows, brute_force(queries, wide.grams, 3)[1])

    @pytest.mark.parametrize("index", ["tree", "exact", "hnsw"])
    def test_queries_that_are_no_numbers(self, store, queries, index):
        search = PatchSearch(store, index)
        whole, order = search.search(queries, 2)
        queries[3, 2], queries[5, 0], queries[7, 5] = float("nan"), float("inf"), float("-inf")
        squared, rows = search.search(queries, 2)
        for place in (3, 5, 7):
            assert rows[place].tolist() == [0, 0]
            assert squared[place].tolist() == [float("inf")] * 2
        others = [place for place in range(len(queries)) if place not in (3, 5, 7)]
        assert torch.equal(rows[others], order[others])
        assert torch.equal(squared[others], whole[others])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_dtype(self, store, queries, dtype):
        queries = queries.to(dtype)
        squared, rows = PatchSearch(store).search(queries)
        assert squared.dtype == torch.float32
        assert torch.equal(rows, brute_force(queries, store.grams, 1)[1])

    def test_huge_queries(self, store):
        squared, rows = PatchSearch(store).search(torch.full((1, 6), 1e30))
        assert squared.isinf().all()  # beyond float32
        assert 0 <= int(rows) < 3000

    def test_exception(self, store):
        with pytest.raises(ValueError, match=r"index: expected one of auto, exact, tree, hnsw, got 'ball'$"):
            PatchSearch(store, "ball")
        for old, new in (("kdtree", "tree"), ("flat", "exact"), ("ivf", "hnsw")):
            with pytest.raises(ValueError, match=f"'{old}'; write '{new}' "):
                PatchSearch(store, old)
        search = PatchSearch(store)
        with pytest.raises(ValueError, match=r"queries: expected \(M, 6\), got \(4, 5\)"):
            search.search(torch.zeros(4, 5))
        for k in (0, 3001):
            with pytest.raises(ValueError, match="k: expected 1 to 3000"):
                search.search(torch.zeros(4, 6), k)

    def test_lookups(self, store):
        search = PatchSearch(store)
        index = torch.tensor([[3, 2999], [0, 3]])
        assert torch.equal(search.grams(index), torch.from_numpy(store.grams[index.numpy()]))
        patches = search.patches(index)
        assert patches.shape == (2, 2, 4, 4, 3)
        assert patches.dtype == torch.float32
        assert torch.equal((patches * 255).round().byte(), torch.from_numpy(store.patches[index.numpy()]))
        assert search.grams(torch.tensor(5)).shape == (6,)
        assert search.patches(torch.tensor(5)).shape == (4, 4, 3)
        # What is stored is what the loss computes.
        images = search.patches(index.flatten()).permute(0, 3, 1, 2)
        torch.testing.assert_close(gram_vectors(images, 4)[:, 0], search.grams(index.flatten()))

    def test_no_gradient(self, store, queries):
        squared, _ = PatchSearch(store).search(queries.requires_grad_())
        assert not squared.requires_grad

    def test_under_autocast(self, store, queries):
        search = PatchSearch(store)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, rows = search.search(queries)
        assert torch.equal(rows, brute_force(queries, store.grams, 1)[1])

    def test_made_when_needed(self, store, queries, monkeypatch):
        made = []
        original = PatchSearch._make_search
        monkeypatch.setattr(PatchSearch, "_make_search", lambda *a: made.append(a) or original(*a))
        search = PatchSearch(store)
        assert not made
        search.search(queries)
        search.search(queries)
        assert len(made) == 1
        PatchSearch(store, device=torch.device("cpu"))
        assert len(made) == 2

    def test_copies(self, store, queries):
        search = PatchSearch(store, "exact")
        expected = search.search(queries, 2)
        module = torch.nn.Module()
        module.search = search
        assert copy.deepcopy(module).search is search
        data = pickle.dumps(search)
        assert len(data) < 1000
        again = pickle.loads(data)
        assert again.index == "exact"
        assert torch.equal(again.search(queries, 2)[1], expected[1])

    @pytest.mark.parametrize("numbers", [2**22, 18])  # also in one of several blocks
    def test_damaged_numbers(self, tmp_path, monkeypatch, numbers):
        monkeypatch.setattr("gramgan_plugin.patchdb.search.BLOCK", numbers)
        grams = np.ones((10, 6), np.float32)
        grams[4, 2] = np.nan
        write_store(tmp_path / "a.patchdb", [np.zeros((10, 4, 4, 3), np.uint8)], 10, Definition(4), [grams])
        for index in ("tree", "exact", "hnsw"):
            with pytest.raises(UserError, match=r"grams\.npy: damaged \(.*finite"):
                open_search(tmp_path / "a.patchdb", index).search(torch.zeros(1, 6))

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match="no such patch database"):
            open_search(tmp_path / "none.patchdb")

    @pytest.mark.parametrize("index", ["tree", "exact", "hnsw"])
    def test_forked_process(self, store, queries, index):
        # After threads have been at work in this process.
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        search = PatchSearch(store, index)
        queries = queries.repeat(4, 1)
        _, expected = search.search(queries)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=lambda: theirs.send(_searched_alone(search, queries)))
        process.start()
        assert ours.poll(30), "a forked process hangs"
        assert ours.recv() == expected.flatten().tolist()
        process.join()
        torch.set_num_threads(before)

    def test_kinds(self):
        assert [kind_of_search("auto", 10**7, dimensions) for dimensions in (6, 8, 9)] == ["tree", "tree", "hnsw"]
        assert [kind_of_search("auto", count, 136) for count in (1000, 2000, 2001)] == ["exact", "exact", "hnsw"]
        assert kind_of_search("auto", 10**6, 136) == "hnsw"
        assert kind_of_search("hnsw", 10, 6) == "hnsw"


class TestOnGpu:
    @pytest.mark.gpu
    @pytest.mark.parametrize("index", ["auto", "exact", "hnsw"])
    def test_feature(self, store, queries, index):
        search = PatchSearch(store, index)
        squared, rows = search.search(queries.cuda(), 3)
        assert squared.is_cuda
        assert rows.is_cuda
        expected, order = brute_force(queries, store.grams, 3)
        assert torch.equal(rows.cpu(), order)
        torch.testing.assert_close(squared.cpu().double(), expected, rtol=1e-6, atol=1e-14)
        assert torch.equal(search.patches(rows).cpu(), search.patches(rows.cpu()))
        assert torch.equal(search.grams(rows).cpu(), search.grams(rows.cpu()))


def test_faiss_and_scipy_wait_until_they_are_needed():
    code = (
        "import sys, gramgan_plugin.patchdb.search; "
        "sys.exit(any(name in sys.modules for name in ('faiss', 'scipy', 'cv2', 'lmdb', 'basicsr')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def _searched_alone(search: PatchSearch, queries: torch.Tensor) -> list[int]:
    torch.set_num_threads(1)  # as in DataLoader's workers: torch's own threads don't survive a fork
    return search.search(queries)[1].flatten().tolist()
