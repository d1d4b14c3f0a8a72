"""Databases of VGG19's features, on random weights, against features written out in float64."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.database_manifest import Definition, Features
from gramgan_plugin.patchdb.making import describing
from gramgan_plugin.patchdb.making.building import build, merge, update
from gramgan_plugin.patchdb.making.matches import picture_of_search
from gramgan_plugin.patchdb.making.patch_collection import Offer, open_collection
from gramgan_plugin.patchdb.making.sampling import Places
from gramgan_plugin.patchdb.making.settings import Settings
from gramgan_plugin.patchdb.making.source_photos import Reading, Seen
from gramgan_plugin.patchdb.search import PatchSearch
from gramgan_plugin.patchdb.store import Store, open_store
from tests.vgg_reference import embedding, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_weights(tmp_path_factory.mktemp("weights") / "vgg.pth", last="conv3_1"))


@pytest.fixture
def halves(photos: Path, tmp_path: Path) -> list[Path]:
    """The photos in two folders."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, path in enumerate(sorted(photos.iterdir())):
        folders[number % 2].mkdir(exist_ok=True)
        (folders[number % 2] / path.name).symlink_to(path)
    return folders


def built(source: Path, out: Path, weights: str, layer: str = "conv1_1", size: int = 4, **given: Any) -> Store:
    given = {
        "definition": Definition(size),
        "max_patches": 150,
        "progress": False,
        "reading": Reading(workers=2),
        **given,
    }
    build([source], out, features=layer, vgg_weights=weights, **given)
    return open_store(out, verify=True)


class TestBuild:
    @pytest.mark.parametrize(
        ("layer", "size", "options", "margin"),
        [
            ("conv1_1", 4, {}, 1),
            ("conv1_2", 3, {"center": True}, 2),
            ("relu2_1", 2, {"normalize": False}, 4),
            ("conv2_1", 1, {}, 4),
            ("conv3_1", 1, {}, 12),
        ],
    )
    def test_feature(
        self,
        photos: Path,
        cuts: dict[str, np.ndarray],
        tmp_path: Path,
        weights: str,
        layer: str,
        size: int,
        options: dict[str, bool],
        margin: int,
    ) -> None:
        """Each Gram vector is that of the whole photo's features at the patch's place: the margin is wide enough."""
        definition = Definition(size, **options)
        store = built(
            photos,
            tmp_path / "a.patchdb",
            weights,
            layer,
            definition=definition,
            settings=Settings(("original",)),
            reading=Reading(on_error="skip"),
        )
        found = store.definition
        assert (found.margin, found.kept_side, store.patches.shape[1:3]) == (
            margin,
            found.patch_side + 2 * margin,
            (found.kept_side, found.kept_side),
        )
        assert store.grams.shape == (150, found.dimensions)
        embed, step = embedding(Path(weights), layer), found.patch_side // size
        assert step == 2 ** (int(layer[4]) - 1)
        names = [Path(record["name"]).stem for record in store.sources()]
        for row, (photo, y, x, _) in enumerate(store.origins.tolist()):
            cut = cuts[names[photo]]
            top, left = y - margin, x - margin
            assert (store.patches[row] == cut[top : top + found.kept_side, left : left + found.kept_side]).all()
            assert (store.inner(np.array(row)) == cut[y : y + found.patch_side, x : x + found.patch_side]).all()
            if row % (5 if step < 4 else 30):
                continue
            # From all of the photo but the rows and columns that pooling would put together with others.
            whole = torch.from_numpy(cut[y % step :, x % step :].copy()).permute(2, 0, 1)[None].double() / 255
            maps = embed(whole)[0, :, y // step : y // step + size, x // step : x // step + size]
            values = maps.flatten(1).T.numpy()
            scale = np.square(values).max()  # what is rounded before a mean is subtracted
            if found.center:
                values = values - values.mean(axis=0)
            gram = values.T @ values / (size * size if found.normalize else 1)
            upper = np.triu_indices(len(gram))
            expected = gram[upper] * np.where(upper[0] == upper[1], 1, 2**0.5)
            np.testing.assert_allclose(store.grams[row], expected, rtol=1e-5, atol=1e-5 * scale)

    def test_feature_small_blocks(
        self,
        photos: Path,
        tmp_path: Path,
        weights: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        whole = built(photos, tmp_path / "a.patchdb", weights)
        monkeypatch.setattr(describing, "MOST_NUMBERS", 64 * 36 * 7)
        parts = built(photos, tmp_path / "b.patchdb", weights, progress=True)
        assert "22/22 blocks" in capsys.readouterr().err  # of 7 patches
        assert (parts.patches == whole.patches).all()
        np.testing.assert_allclose(parts.grams, whole.grams, rtol=1e-5, atol=1e-6)

    def test_feature_the_same_again(self, photos: Path, tmp_path: Path, weights: str) -> None:
        found = {built(photos, tmp_path / name, weights).fingerprint for name in ("a.patchdb", "b.patchdb")}
        assert len(found) == 1

    def test_feature_too_small_for_the_margin(self, photos: Path, tmp_path: Path, weights: str) -> None:
        given = {"definition": Definition(8), "reading": Reading(on_error="skip"), "progress": False}
        report = build([photos], tmp_path / "a.patchdb", features="conv2_1", vgg_weights=weights, **given)
        ((name, reason),) = report.skipped
        assert name == "tiny.png"
        assert re.match(r"17x16, .* 16 pixels and the 4 around", reason)

    def test_progress(self, photos: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
        built(photos, tmp_path / "a.patchdb", weights, progress=True)
        assert "1/1 blocks" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("layer", "size", "message"),
        [
            ("conv1_3", 4, r"--features conv1_3: .* no such layer; .*conv1_1, "),
            ("conv2_1", 65, r"--patch-size 65: must be 1 to 64 at conv2_1"),
            ("conv3_2", 4, r"vgg.pth: no features\.12\.weight"),
        ],
    )
    def test_exception(self, photos: Path, tmp_path: Path, weights: str, layer: str, size: int, message: str) -> None:
        with pytest.raises(UserError, match=message):
            built(photos, tmp_path / "a.patchdb", weights, layer, size)
        assert not list(tmp_path.iterdir())


def test_margins_make_no_other_patch(tmp_path: Path) -> None:
    """Patches are alike by themselves, whatever lies around them."""
    definition = Definition(4, features=Features("conv1_1", "0" * 64, 64, margin=1))
    image = np.random.default_rng(0).integers(0, 256, (12, 24, 3), np.uint8)
    image[4:8, 16:20] = image[4:8, 4:8]
    collection = open_collection(definition, Settings(), 10, tmp_path / "scratch")
    seen = Seen("a.png", 24, 12, "0" * 64, (3, 0, 0), (3, 0, 0))
    y, x = np.array([4, 4, 4], np.int32), np.array([4, 16, 10], np.int32)
    collection.add(Offer(seen, [(0, image, Places(3, 3, y, x))]))
    collection.reservoir.settle()
    (rows,) = collection.reservoir.rows(np.zeros(1, np.int32))
    collection.reservoir.close()
    assert rows.origins[:, 2].tolist() in ([4, 10], [10, 16])
    for patch, left in zip(rows.patches, rows.origins[:, 2], strict=True):
        assert (patch == image[3:9, left - 1 : left + 5]).all()


class TestUpdate:
    def test_feature(self, photos: Path, halves: list[Path], tmp_path: Path, weights: str) -> None:
        """As built at once."""
        whole = built(photos, tmp_path / "whole.patchdb", weights)
        built(halves[0], tmp_path / "a.patchdb", weights)
        report = update(tmp_path / "a.patchdb", [halves[1]], vgg_weights=weights, progress=False)
        store = open_store(tmp_path / "a.patchdb", verify=True)
        assert report.new == 3
        assert store.definition == whole.definition
        assert (store.patches == whole.patches).all()
        assert (store.origins == whole.origins).all()
        np.testing.assert_allclose(store.grams, whole.grams, rtol=1e-5, atol=1e-6)

    def test_exception_other_weights(self, halves: list[Path], tmp_path: Path, weights: str) -> None:
        before = built(halves[0], tmp_path / "a.patchdb", weights).fingerprint
        other = str(write_weights(tmp_path / "other.pth", seed=1))
        with pytest.raises(UserError, match=r"a.patchdb: .* other VGG19 weights .*other.pth"):
            update(tmp_path / "a.patchdb", [halves[1]], vgg_weights=other, progress=False)
        assert open_store(tmp_path / "a.patchdb", verify=True).fingerprint == before


class TestMerge:
    def test_feature(self, photos: Path, halves: list[Path], tmp_path: Path, weights: str) -> None:
        given = {"max_patches": 1000, "settings": Settings(thin=0)}
        whole = built(photos, tmp_path / "whole.patchdb", weights, **{**given, "max_patches": 2000})
        parts = [tmp_path / f"{half.name}.patchdb" for half in halves]
        for half, part in zip(halves, parts, strict=True):
            built(half, part, weights, **given)
        merge(parts, tmp_path / "m.patchdb", vgg_weights=weights, progress=False)
        store = open_store(tmp_path / "m.patchdb", verify=True)
        assert store.count == sum(open_store(part).count for part in parts) == whole.count
        theirs = dict(zip(map(tuple, whole.origins.tolist()), whole.grams, strict=True))
        for origin, gram in zip(map(tuple, store.origins.tolist()), store.grams, strict=True):
            if origin in theirs:
                np.testing.assert_allclose(gram, theirs[origin], rtol=1e-5, atol=1e-6)

    def test_exception(self, halves: list[Path], tmp_path: Path, weights: str) -> None:
        built(halves[0], tmp_path / "a.patchdb", weights)
        build([halves[1]], tmp_path / "p.patchdb", max_patches=150, progress=False)
        other = str(write_weights(tmp_path / "other.pth", seed=1))
        built(halves[1], tmp_path / "o.patchdb", other)
        for name, words in (
            ("p", r"p.patchdb: has Gram matrices of pixels, not of conv1_1 as .*a.patchdb; only"),
            ("o", r"o.patchdb: has Gram matrices of conv1_1 with other VGG19 weights as .*a.patchdb"),
        ):
            with pytest.raises(UserError, match=words):
                merge([tmp_path / "a.patchdb", tmp_path / f"{name}.patchdb"], tmp_path / "m.patchdb")


class TestSearch:
    def test_feature(self, photos: Path, cuts: dict[str, np.ndarray], tmp_path: Path, weights: str) -> None:
        """What is said to be nearest is, by Gram matrices in float64."""
        store = built(photos, tmp_path / "a.patchdb", weights, max_patches=600)
        found = picture_of_search(store, PatchSearch(store, "exact"), photos / "cat.png", 2, weights)
        image = torch.from_numpy(cuts["cat"].copy()).permute(2, 0, 1)[None].double() / 255
        maps = embedding(Path(weights), "conv1_1")(image[..., :128, :140])[0]
        upper = np.triu_indices(64)
        assert len(found.rows) == 12
        for shown in found.rows:
            y, x = shown["y"], shown["x"]
            values = maps[:, y : y + 4, x : x + 4].flatten(1).T.numpy()
            gram = (values.T @ values / 16)[upper] * np.where(upper[0] == upper[1], 1, 2**0.5)
            distances = np.sqrt(np.square(np.array(store.grams, np.float64) - gram).sum(axis=1))
            rows = [each["row"] for each in shown["found"]]
            np.testing.assert_allclose(distances[rows], np.sort(distances)[:2], rtol=1e-4)
            np.testing.assert_allclose([each["distance"] for each in shown["found"]], distances[rows], rtol=1e-4)

    def test_exception(self, photos: Path, tmp_path: Path, weights: str) -> None:
        store = built(photos, tmp_path / "a.patchdb", weights)
        other = str(write_weights(tmp_path / "other.pth", seed=1))
        with pytest.raises(UserError, match="other VGG19 weights"):
            picture_of_search(store, PatchSearch(store, "exact"), photos / "cat.png", 2, other)
