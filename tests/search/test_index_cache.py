import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from gramgan_plugin.patchdb.database_manifest import Definition, Features
from gramgan_plugin.patchdb.search import PatchSearch, build_index, index_facts, rows_of
from gramgan_plugin.patchdb.store import Store, open_store
from gramgan_plugin.patchdb.writing import write_store
from gramgan_plugin.search import hnsw
from gramgan_plugin.search.exact import ExactSearch
from gramgan_plugin.search.hnsw import HeldOut, held_out

COUNT, DIMENSIONS = 600, 21


def write(folder: Path, seed: int = 0, count: int = COUNT) -> Store:
    rng = np.random.default_rng(seed)
    grams = (rng.normal(size=(count, DIMENSIONS)) * 0.7 ** np.arange(DIMENSIONS)).astype(np.float32)
    patches = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    definition = Definition(4, features=Features("conv1_2", "0" * 64, channels=6))
    write_store(folder, [patches], count, definition, [grams])
    return open_store(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write(tmp_path / "small.patchdb")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows of the indexes that have been made."""
    counts: list[int] = []
    original = hnsw.make_index
    monkeypatch.setattr(hnsw, "make_index", lambda rows: counts.append(len(rows)) or original(rows))
    return counts


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each time that faiss reads an index."""
    times: list[int] = []
    original = faiss.read_index
    monkeypatch.setattr(faiss, "read_index", lambda *a: times.append(1) or original(*a))
    return times


def nearest(store: Store) -> float:
    """The share of queries whose nearest row is found."""
    queries = torch.from_numpy(np.array(store.grams[:200])) + 1e-3
    _, rows = PatchSearch(store, "hnsw").search(queries)
    return float((rows == ExactSearch(rows_of(store)).search(queries, 1).rows).double().mean())


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def garbage(path: Path) -> None:
    path.write_bytes(b'{"kind": \xff')


def other_json(path: Path) -> None:
    path.write_text("[1, 2]")


def deep_json(path: Path) -> None:
    path.write_text("[" * 30000)


def unknown_key(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "pickle": "x"}))


def wrong_effort(path: Path) -> None:
    record = json.loads(path.read_text())
    record["settings"]["effort"] = "9"
    path.write_text(json.dumps(record))


JSON_DAMAGES = (garbage, other_json, deep_json, unknown_key, wrong_effort)


class TestCache:
    def test_smoke(self, store, made, read):
        facts = build_index(store, "hnsw")
        assert len(made) == 1
        assert sorted(path.name for path in (store.path / "index").iterdir()) == ["hnsw.faiss", "hnsw.json"]
        assert facts["kind"] == "hnsw"
        assert facts["faiss"] == faiss.__version__
        assert facts["recall"]["queries"] == 150
        assert 0.97 <= facts["recall"]["at_1"] <= 1
        assert 0.5 <= facts["recall"]["at_10"] <= 1
        assert index_facts(store) == [facts]
        assert not read
        assert nearest(store) > 0.9
        assert build_index(store, "hnsw") == facts
        assert len(made) == 1
        assert len(read) == 2
        open_store(store.path, verify=True)  # the database itself is as it was

    @pytest.mark.parametrize("damage", [flip_bit, truncate, empty])
    def test_damaged_index_never_reaches_faiss(self, store, made, read, caplog, damage):
        build_index(store, "hnsw")
        damage(store.path / "index" / "hnsw.faiss")
        with caplog.at_level(logging.WARNING):
            assert nearest(store) > 0.9
        assert len(made) == 2
        assert not read
        assert "hnsw.faiss: damaged" in caplog.text
        assert nearest(store) > 0.9
        assert len(made) == 2

    @pytest.mark.parametrize("damage", [remove, replace_by_folder])
    def test_index_is_gone(self, store, made, damage):
        build_index(store, "hnsw")
        damage(store.path / "index" / "hnsw.faiss")
        assert nearest(store) > 0.9
        assert len(made) == 2

    @pytest.mark.parametrize(
        "damage",
        [
            flip_bit,
            truncate,
            empty,
            remove,
            replace_by_folder,
            garbage,
            other_json,
            deep_json,
            unknown_key,
            wrong_effort,
        ],
    )
    def test_damaged_json(self, store, made, damage):
        build_index(store, "hnsw")
        damage(store.path / "index" / "hnsw.json")
        assert nearest(store) > 0.9
        # A flipped bit may hit a number of the recall, which nothing depends on.
        assert len(made) == 2 or damage is flip_bit

    @pytest.mark.parametrize("effort", [0, -1, 2**31, 9.5, True, None])
    def test_an_effort_that_faiss_cannot_use(self, store, effort):
        build_index(store, "hnsw")
        path = store.path / "index" / "hnsw.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "settings": {**record["settings"], "effort": effort}}))
        assert index_facts(store) == []

    def test_a_longer_json_is_not_read(self, store, caplog):
        build_index(store, "hnsw")
        path = store.path / "index" / "hnsw.json"
        path.write_text(path.read_text() + " " * 2**16)
        assert index_facts(store) == []
        assert "hnsw.json: damaged; ignored" in caplog.text

    def test_swapped(self, store, tmp_path, made, read, caplog):
        other = write(tmp_path / "other.patchdb", seed=1)
        build_index(store, "hnsw")
        build_index(other, "hnsw")
        for name in ("hnsw.faiss", "hnsw.json"):  # both at once: the checksum fits
            (store.path / "index" / name).write_bytes((other.path / "index" / name).read_bytes())
        assert index_facts(store) == []
        with caplog.at_level(logging.WARNING):
            assert nearest(store) > 0.9
        assert len(made) == 3
        assert not read
        assert "another database" in caplog.text

    def test_other_size(self, store, tmp_path, made, caplog):
        other = write(tmp_path / "other.patchdb", count=500)
        build_index(store, "hnsw")
        build_index(other, "hnsw")
        (store.path / "index" / "hnsw.faiss").write_bytes((other.path / "index" / "hnsw.faiss").read_bytes())
        record = json.loads((other.path / "index" / "hnsw.json").read_text())
        (store.path / "index" / "hnsw.json").write_text(json.dumps({**record, "database": store.fingerprint}))
        with caplog.at_level(logging.WARNING):
            assert nearest(store) > 0.9
        assert len(made) == 3
        assert "holds 500 rows of 21 numbers, not 600 of 21" in caplog.text

    def test_an_index_of_an_earlier_version(self, store, made, read):
        """A database may have one of another kind, which is let be; under our name, it is made again."""
        build_index(store, "hnsw")
        folder = store.path / "index"
        record = json.loads((folder / "hnsw.json").read_text())
        (folder / "ivf.json").write_text(json.dumps({**record, "kind": "ivf"}))
        (folder / "ivf.faiss").write_bytes((folder / "hnsw.faiss").read_bytes())
        assert [facts["kind"] for facts in index_facts(store)] == ["hnsw"]
        (folder / "ivf.json").rename(folder / "hnsw.json")
        assert index_facts(store) == []
        assert nearest(store) > 0.9
        assert len(made) == 2
        assert not read

    def test_other_version(self, store, made, read, caplog, monkeypatch):
        build_index(store, "hnsw")
        monkeypatch.setattr(faiss, "__version__", "99.0")
        with caplog.at_level(logging.WARNING):
            build_index(store, "hnsw")
        assert len(made) == 2
        assert not read
        assert "this is 99.0" in caplog.text
        assert json.loads((store.path / "index" / "hnsw.json").read_text())["faiss"] == "99.0"

    def test_other_format(self, store, made, read):
        build_index(store, "hnsw")
        path = store.path / "index" / "hnsw.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
        assert nearest(store) > 0.9
        assert len(made) == 2
        assert not read

    def test_folder_that_cannot_be_written(self, store, made, caplog):
        (store.path / "index").write_bytes(b"")  # holds for root, too
        with caplog.at_level(logging.WARNING):
            assert nearest(store) > 0.9
        assert "is not kept" in caplog.text
        assert len(made) == 1

    def test_full_disk(self, store, made, caplog, monkeypatch):
        def full(*arguments: object) -> None:
            raise RuntimeError("write error")

        monkeypatch.setattr(faiss, "write_index", full)
        with caplog.at_level(logging.WARNING):
            build_index(store, "hnsw")
        assert "is not kept" in caplog.text
        assert list((store.path / "index").iterdir()) == []

    @pytest.mark.parametrize("count", [1, 2, 5, 40])
    def test_few_rows(self, tmp_path, count):
        store = write(tmp_path / "few.patchdb", count=count)
        squared, rows = PatchSearch(store, "hnsw").search(torch.from_numpy(np.array(store.grams)), count)
        assert torch.equal(rows[:, 0], torch.arange(count))
        assert all(sorted(found) == list(range(count)) for found in rows.tolist())
        assert squared.isfinite().all()


def test_fewer_found_than_asked_for(store):
    class Short:
        """An index that finds nothing for every other query."""

        def __init__(self, index):
            self.index, self.hnsw = index, index.hnsw

        def search(self, queries, k):
            distances, places = self.index.search(queries, k)
            places[::2, k // 2 :] = -1
            return distances, places

    rows = rows_of(store)
    index, _, _ = hnsw.make_index(rows)
    queries = torch.from_numpy(np.array(store.grams[:50]))
    found = hnsw.HnswSearch(rows, Short(index), 600).search(queries, 400)
    expected = ExactSearch(rows).search(queries, 400)
    assert torch.equal(found.rows[::2], expected.rows[::2])
    torch.testing.assert_close(found.squared[::2], expected.squared[::2])


class TestRecall:
    @pytest.mark.parametrize("count", [1, 3, 4, 10, 3999, 4000, 123457])
    def test_held_out(self, count):
        inside, outside = held_out(count)
        assert sorted([*inside.tolist(), *outside.tolist()]) == list(range(count))
        assert len(outside) == min(1000, count // max(4, count // 1000))

    def test_exact_search(self, store):
        class OfThoseInside:
            def search(self, queries, k):
                inside, _ = held_out(COUNT)
                found = ExactSearch(rows_of(store)[inside]).search(queries, k)
                return found._replace(rows=torch.from_numpy(inside)[found.rows])

        recall = HeldOut(rows_of(store)).recall(OfThoseInside())
        assert recall == {"queries": 150, "at_1": 1.0, "at_10": 1.0}

    def test_half_of_the_rows(self, store):
        inside, outside = held_out(COUNT)
        half = inside[::2]

        class Half:
            def search(self, queries, k):
                return ExactSearch(rows_of(store)[half]).search(queries, k)

        squared = ((store.grams[outside][:, None].astype(float) - store.grams[inside].astype(float)) ** 2).sum(-1)
        order = inside[squared.argsort(axis=1)]
        recall = HeldOut(rows_of(store)).recall(Half())
        assert recall["at_1"] == np.isin(order[:, 0], half).mean()
        assert recall["at_10"] == pytest.approx(np.isin(order[:, :10], half).mean())

    @pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 31, 33, 100, 1000, 1024])
    def test_effort_is_the_least(self, store, needed):
        """To an eighth, with as few measurements as doubling and halving take."""
        efforts = []

        class Questions:
            def recall(self, search):
                efforts.append(search.index.hnsw.efSearch)
                return {"at_10": efforts[-1] / 2000, "at_1": 0.99 if efforts[-1] >= needed else 0.98}

        search = hnsw.HnswSearch(rows_of(store), SimpleNamespace(hnsw=SimpleNamespace(efSearch=0)), 1)
        effort, measured = hnsw._find_effort(search, Questions())
        assert needed <= effort <= needed + max(0, effort // 8)
        assert measured == {"at_10": effort / 2000, "at_1": 0.99}
        assert len(efforts) < 18

    def test_effort_grows_until_it_suffices(self, store, monkeypatch, caplog):
        few = build_index(store, "hnsw")["settings"]["effort"]
        (store.path / "index" / "hnsw.json").unlink()
        monkeypatch.setattr(hnsw, "TARGET", 1.1)
        assert "finds" not in caplog.text
        assert build_index(store, "hnsw")["settings"]["effort"] == hnsw.MOST_EFFORT > few
        assert "The search index finds 100.0 % of nearest patches only" in caplog.text


def test_threads_are_those_of_torch(store, monkeypatch):
    given = []
    monkeypatch.setattr(faiss, "omp_set_num_threads", given.append)
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            torch.set_num_threads(threads)
            PatchSearch(store, "hnsw").search(torch.zeros(1, DIMENSIONS))
            assert given[-1] == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_torch_and_faiss_in_one_process(store, kind):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        search = PatchSearch(store, kind)
        queries = torch.from_numpy(np.array(store.grams)).repeat(8, 1)
        for _ in range(3):
            product = torch.ones(300, 300) @ torch.ones(300, 300)
            assert (product == 300).all()
            assert (search.search(queries)[0] < 1e-9).all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_index_for_exact_searches(store):
    for kind in ("tree", "exact", "auto"):
        assert build_index(store, kind)["kind"] == ("exact" if kind == "auto" else kind)
    assert not (store.path / "index").exists()
