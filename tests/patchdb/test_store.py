import copy
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.patchdb.database_manifest import ARRAYS, Definition, Features
from gramgan_plugin.patchdb.store import Store, check_fits, database_facts, open_store
from gramgan_plugin.patchdb.writing import StoreWriter, write_store

FILES = (*ARRAYS, "sources.jsonl", "manifest.json")
COUNT = 90


def some_patches() -> np.ndarray:
    photo = skimage.data.chelsea()
    return np.stack([photo[y : y + 4, 3 * y : 3 * y + 4] for y in range(COUNT)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "a.patchdb"
    write_store(folder, np.array_split(some_patches(), 4), COUNT, Definition(4))
    return folder


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "a.patchdb"))


def change_manifest(database: Path, change: Callable[[dict[str, Any]], object], sign: bool = True) -> None:
    """Edit the manifest; signed, as somebody who knows the format would."""
    path = database / "manifest.json"
    record = json.loads(path.read_text())
    del record["record"]
    change(record)
    text = json.dumps(record, sort_keys=True).encode()
    record["record"] = hashlib.sha256(text).hexdigest() if sign else "0" * 64
    path.write_text(json.dumps(record))


class TestOpenStore:
    def test_smoke(self, made: Path) -> None:
        store = open_store(made, verify=True)
        assert (store.count, store.patch_size, store.path) == (COUNT, 4, made)
        assert (store.patches == some_patches()).all()
        assert isinstance(store.grams, np.memmap)
        assert not store.grams.flags.writeable
        assert [record["name"] for record in store.sources()] == ["none"]
        assert sorted(path.name for path in made.iterdir()) == sorted(FILES)

    def test_feature_plain_npy(self, made: Path) -> None:
        """Anybody's numpy reads the files, and `sha256sum` gives the manifest's numbers."""
        manifest = json.loads((made / "manifest.json").read_text())
        for name, facts in manifest["arrays"].items():
            array = np.load(made / name, allow_pickle=False)
            assert (str(array.dtype), list(array.shape)) == (facts["dtype"], facts["shape"])
            assert hashlib.sha256((made / name).read_bytes()).hexdigest() == facts["sha256"]

    def test_feature_copies_are_opened_anew(self, made: Path) -> None:
        store = open_store(made)
        data = pickle.dumps(store)
        assert len(data) < 1000
        for other in (pickle.loads(data), copy.deepcopy(store)):
            assert isinstance(other.patches, np.memmap)
            assert other.fingerprint == store.fingerprint

    @pytest.mark.parametrize("name", FILES)
    def test_exception_missing(self, database: Path, name: str) -> None:
        (database / name).unlink()
        with pytest.raises(UserError, match=rf"a\.patchdb.*{name}.*(is missing)") as caught:
            open_store(database)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("left", [0, 5, 60, -2])
    def test_exception_cut_short(self, database: Path, name: str, left: int) -> None:
        data = (database / name).read_bytes()
        (database / name).write_bytes(data[:left])
        with pytest.raises(UserError, match=rf"a\.patchdb.*{name}: damaged"):
            open_store(database)

    @pytest.mark.parametrize("name", FILES)
    def test_exception_too_long(self, database: Path, name: str) -> None:
        with (database / name).open("ab") as file:
            file.write(b"x")
        with pytest.raises(UserError, match=rf"{name}: damaged"):
            open_store(database)

    @pytest.mark.parametrize("name", FILES)
    def test_exception_flipped_bits(self, database: Path, name: str) -> None:
        """Wherever a bit flips, verifying finds it, or what is read is the same."""
        path, before = database / name, open_store(database)
        sound = path.read_bytes()
        rng = np.random.default_rng(0)
        places = {0, 7, 9, len(sound) - 2, *rng.integers(0, len(sound), 60).tolist()}
        found = 0
        for place in places:
            data = bytearray(sound)
            data[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(data)
            try:
                store = open_store(database, verify=True)
            except UserError as error:
                assert str(error).startswith(str(path))  # noqa: PT017
                found += 1
            else:
                assert store.manifest == before.manifest
                assert name == "manifest.json"
        assert found > 0.9 * len(places)

    @pytest.mark.parametrize("name", ARRAYS)
    def test_exception_wrong_array(self, database: Path, name: str) -> None:
        """Another shape, another type, another order: refused without reading all of it."""
        path = database / name
        array = np.load(path)
        for wrong in (array[:-1], array[None], array.astype(np.float64), np.ones((COUNT, 7), array.dtype)):
            np.save(path, wrong)
            with pytest.raises(UserError, match=rf"{name}: damaged \(.* manifest.json says"):
                open_store(database)
        if array.ndim > 1:
            np.save(path, np.asfortranarray(array))
            with pytest.raises(UserError, match=rf"{name}: damaged"):
                open_store(database)

    @pytest.mark.parametrize("name", ARRAYS)
    def test_exception_pickles(self, database: Path, name: str, tmp_path: Path) -> None:
        """An array of objects, a bare pickle, an archive: nothing in them is run."""
        path, trap = database / name, tmp_path / "trap"

        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return trap.touch, ()

        objects = np.empty(COUNT, object)
        objects[:] = [Trap()] * COUNT
        np.save(path, objects, allow_pickle=True)
        with pytest.raises(UserError, match=rf"{name}: damaged"):
            open_store(database, verify=True)
        path.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(UserError, match=rf"{name}: damaged"):
            open_store(database, verify=True)
        with path.open("wb") as file:
            np.savez(file, np.zeros(3))
        with pytest.raises(UserError, match=rf"{name}: damaged"):
            open_store(database, verify=True)
        assert not trap.exists()

    def test_exception_newer(self, database: Path) -> None:
        change_manifest(database, lambda record: record.update(format=2, arrays="of another kind"))
        with pytest.raises(UserError, match=r"manifest.json: .* newer .*\(format 2, known is 1\)"):
            open_store(database)

    @pytest.mark.parametrize(
        "change",
        [
            lambda record: record.pop("count"),
            lambda record: record.update(count=COUNT + 1),
            lambda record: record.update(count=0),
            lambda record: record.update(gram=None),
            lambda record: record["gram"].update(center=True),
            lambda record: record.update(patch_size=8),
            lambda record: record["arrays"].pop("ranks.npy"),
            lambda record: record["arrays"].update({"../../x.npy": record["arrays"]["grams.npy"]}),
            lambda record: record["arrays"]["grams.npy"].update(dtype="object"),
            lambda record: record["arrays"]["grams.npy"].update(sha256="0" * 64),
            lambda record: record["sources"].update(bytes=-1),
            lambda record: record.update(fingerprint="0" * 64),
        ],
    )
    def test_exception_manifest(self, database: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Also one that somebody has made up."""
        change_manifest(database, change)
        with pytest.raises(UserError, match=r"manifest.json: damaged \(its entries"):
            open_store(database)
        change_manifest(database, lambda record: None, sign=False)
        with pytest.raises(UserError, match=r"manifest.json: damaged \(was changed"):
            open_store(database)

    @pytest.mark.parametrize(
        "text", ["", "[]", "null", "{", "[" * 100_000, '{"format": true}', '{"format": "1"}', "\xff"]
    )
    def test_exception_no_manifest(self, database: Path, text: str) -> None:
        (database / "manifest.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"manifest.json: damaged"):
            open_store(database)

    def test_exception_no_database(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"none.patchdb: no such patch database"):
            open_store(tmp_path / "none.patchdb")
        with pytest.raises(UserError, match=r"\(manifest.json is missing\)"):
            open_store(tmp_path)
        (tmp_path / "[a].patchdb.moved-aside").mkdir()
        with pytest.raises(UserError, match=r"left it as \[a\].patchdb.moved-aside"):
            open_store(tmp_path / "[a].patchdb")
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file: a file, but "):
            open_store(tmp_path / "file")


class TestCheckFits:
    FITS: dict[str, Any] = {"patch_size": 4, "channels": 3, "normalize": True, "center": False, "layer": None}  # noqa: RUF012

    def test_smoke(self, made: Path) -> None:
        check_fits(open_store(made), **self.FITS)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("patch_size", 8, r"gram_patch_opt.patch_size: 8, .*a.patchdb .* 4; .*`patch_size: 4`.*--patch-size 8$"),
            ("center", True, r"gram_patch_opt.center: true, .* false; .*`center: false`.* --center$"),
            ("normalize", False, r"gram_patch_opt.normalize: false, .* true.* --no-normalize$"),
            ("layer", "conv1_2", r"gram_patch_opt.features: \{layer: conv1_2\}, .* null; .* --features conv1_2$"),
            ("channels", 1, r"gram_patch_opt.database: .* 1 channels, .* 3"),
        ],
    )
    def test_exception(self, made: Path, name: str, value: Any, message: str) -> None:
        with pytest.raises(OptionError, match=message) as caught:
            check_fits(open_store(made), **{**self.FITS, name: value})
        assert "\n" not in str(caught.value)


class TestDatabaseFacts:
    def test_feature_no_path(self, made: Path, database: Path) -> None:
        facts = database_facts(made)
        assert facts == database_facts(database)
        assert facts == {"fingerprint": open_store(made).fingerprint, "count": COUNT, "patch_size": 4}

    def test_feature_other_patches(self, made: Path, tmp_path: Path) -> None:
        """Another pixel, another order, another Gram definition: another fingerprint; other blocks: the same."""
        patches = some_patches()
        found = {database_facts(made)["fingerprint"]}
        other = patches.copy()
        other[5, 0, 0, 0] ^= 1
        variants: list[tuple[Any, Definition]] = [
            (other, Definition(4)),
            (patches[::-1], Definition(4)),
            (patches, Definition(4, center=True)),
            (patches, Definition(4, normalize=False)),
        ]
        for number, (block, definition) in enumerate(variants):
            found.add(write_store(tmp_path / str(number), [block], COUNT, definition)["fingerprint"])
        assert len(found) == 5
        assert write_store(tmp_path / "same", [patches], COUNT, Definition(4))["fingerprint"] in found


class TestStoreWriter:
    def test_feature_features(self, tmp_path: Path) -> None:
        """Vectors of any length, which come from elsewhere."""
        definition = Definition(2, features=Features("conv1_2", "0" * 64, channels=8, margin=1))
        rows = np.random.default_rng(0).random((COUNT, 36), np.float32)
        write_store(tmp_path / "f", [some_patches()], COUNT, definition, [rows])
        store = open_store(tmp_path / "f", verify=True)
        assert (store.grams == rows).all()
        assert (store.inner(np.array([[3]])) == some_patches()[3, 1:3, 1:3]).all()
        fits = {**TestCheckFits.FITS, "patch_size": 2}
        for weights in (None, "0" * 64):
            check_fits(store, **{**fits, "layer": "conv1_2", "weights": weights})
        with pytest.raises(OptionError, match=r"gram_patch_opt.features: .* other VGG19 weights"):
            check_fits(store, **{**fits, "layer": "conv1_2", "weights": "1" * 64})
        with pytest.raises(
            OptionError, match=r"gram_patch_opt.features: null, .* \{layer: conv1_2\}.* without --features$"
        ):
            check_fits(store, **fits)

    def test_exception(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="of 0 patches"):
            write_store(tmp_path / "x", [], 0, Definition(4))
        with pytest.raises(ValueError, match="90 patches were written, not 91"):
            write_store(tmp_path / "x", [some_patches()], COUNT + 1, Definition(4))
        with StoreWriter(tmp_path / "x", Definition(4), 3) as writer:
            with pytest.raises(ValueError, match=r"patches.npy: float64 .* is not a block of uint8"):
                writer.add(np.zeros((3, 4, 4, 3)), grams=np.zeros((3, 6), np.float32))
            with pytest.raises(ValueError, match=r"grams.npy: float32 of \(3, 5\)"):
                writer.add(np.zeros((3, 4, 4, 3), np.uint8), grams=np.zeros((3, 5), np.float32))


def test_store_is_typed(made: Path) -> None:
    assert isinstance(open_store(made), Store)
