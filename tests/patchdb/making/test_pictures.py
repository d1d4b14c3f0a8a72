import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.database_manifest import Definition, Features
from gramgan_plugin.patchdb.making.building import build
from gramgan_plugin.patchdb.making.info import describe, lines
from gramgan_plugin.patchdb.making.matches import picture_of_search
from gramgan_plugin.patchdb.making.settings import Settings
from gramgan_plugin.patchdb.making.sheet import contact_sheet, save_picture
from gramgan_plugin.patchdb.search import build_index
from gramgan_plugin.patchdb.store import Store, open_store
from gramgan_plugin.patchdb.writing import write_store
from gramgan_plugin.utils.pictures import GAP


class Exact:
    """A search by differences, in float64."""

    def __init__(self, store: Store) -> None:
        self.tree = cKDTree(np.array(store.grams, np.float64))

    def search(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        distance, index = self.tree.query(queries.double().numpy(), k=range(1, k + 1))
        return torch.from_numpy(distance**2), torch.from_numpy(index)


@pytest.fixture(scope="module")
def store(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("db") / "a.patchdb"
    build([photos], out, max_patches=2000, progress=False)
    return open_store(out)


def cells_of(sheet: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows * columns, 4, 4, 3) RGB: what is shown, made small again."""
    step = 4 * 6 + 2
    parts = [
        sheet[30 + y * step : 30 + y * step + 24, 64 + x * step : 64 + x * step + 24]
        for y in range(rows)
        for x in range(columns)
    ]
    return np.stack([part[3::6, 3::6, ::-1] for part in parts])


class TestContactSheet:
    def test_feature(self, store: Store) -> None:
        """Every cell is a patch of the database; contrast grows from row to row; hue goes round."""
        sheet = contact_sheet(store, columns=20, rows=10)
        assert sheet.shape == (30 + 10 * 26, 64 + 20 * 26, 3)
        cells = cells_of(sheet, 10, 20)
        present = {patch.tobytes() for patch in np.array(store.patches)}
        assert all(np.ascontiguousarray(cell).tobytes() in present for cell in cells)
        assert len({cell.tobytes() for cell in cells}) == 200
        contrast = np.sqrt((cells / 255).reshape(10, 20, 16, 3).var(axis=2).mean(axis=2))  # (rows, columns)
        assert (contrast.max(axis=1)[:-1] <= contrast.min(axis=1)[1:] + 1e-9).all()
        means = cells.reshape(10, 20, 16, 3).mean(axis=2)
        for row in means:
            gray = np.ptp(row, axis=1) < 12
            assert not (np.diff(gray.astype(int)) > 0).any()  # gray ones first
            assert (np.diff(row[gray].mean(axis=1)) >= 0).all()
            hues = cv2.cvtColor((row[None, ~gray] / 255).astype(np.float32), cv2.COLOR_RGB2HSV)[0, :, 0]
            assert (np.diff(hues) >= -1e-3).all()

    def test_feature_small_and_large_patches(self, photos: Path, tmp_path: Path) -> None:
        patches = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
        write_store(tmp_path / "a", [patches], 5, Definition(32))
        assert contact_sheet(open_store(tmp_path / "a")).shape == (30 + 34, 64 + 48 * 34, 3)
        write_store(tmp_path / "b", [patches[:, :4, :4, :1].copy()], 5, Definition(4, channels=1))
        assert contact_sheet(open_store(tmp_path / "b"), columns=3).shape[0] == 30 + 2 * 26

    def test_exception(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"x.jpg: pictures are written as PNG"):
            save_picture(contact_sheet(store, 2, 2), tmp_path / "x.jpg")
        save_picture(contact_sheet(store, 2, 2), tmp_path / "x.png")
        assert (cv2.imread(str(tmp_path / "x.png")) == contact_sheet(store, 2, 2)).all()


class TestPictureOfSearch:
    def test_feature(self, store: Store, photos: Path, cuts: dict[str, np.ndarray]) -> None:
        """The nearest by brute force in float64, their true distances, and the picture that they make."""
        found = picture_of_search(store, Exact(store), photos / "spoon.png", top_k=3)
        image = cuts["spoon"][:88, :140]
        grams = np.array(store.grams, np.float64)
        pictured = np.empty_like(image)
        total, nearest = [], {}
        for y in range(0, 88, 4):
            for x in range(0, 140, 4):
                values = image[y : y + 4, x : x + 4].reshape(16, 3) / 255
                gram = (values.T @ values / 16)[np.triu_indices(3)] * np.sqrt([1, 2, 2, 1, 2, 1])
                distance = np.sqrt(((grams - gram) ** 2).sum(axis=1))
                best = int(distance.argmin())
                nearest[y, x] = (best, np.sort(distance)[:3])
                pictured[y : y + 4, x : x + 4] = store.patches[best]
                total.append(distance[best])
        assert found.distance == pytest.approx(np.mean(total), rel=1e-5)
        mse = ((pictured.astype(float) - image) ** 2).mean()
        assert found.psnr == pytest.approx(10 * np.log10(255**2 / mse), abs=0.05)
        assert len(found.rows) == 12
        sources = [line["name"] for line in store.sources()]
        for row in found.rows:
            best, distances = nearest[row["y"], row["x"]]
            np.testing.assert_allclose([match["distance"] for match in row["found"]], distances, atol=1e-6)
            photo, y, x, variant = store.origins[row["found"][0]["row"]].tolist()
            named = {"photo": sources[photo], "y": y, "x": x, "variant": variant}
            assert row["found"][0].items() >= named.items()
            assert row["found"][0]["row"] == best or distances[1] - distances[0] < 1e-6
        zoom = 512 // 140
        assert (found.picture[28 : 28 + 88 * zoom : zoom, : 140 * zoom : zoom, ::-1] == image).all()
        right = found.picture[28 : 28 + 88 * zoom : zoom, 140 * zoom + GAP : 280 * zoom + GAP : zoom, ::-1]
        assert (right == pictured).all(axis=2).mean() > 0.95  # ties aside

    def test_feature_itself(self, photos: Path, tmp_path: Path) -> None:
        """In a database of all its patches, an image finds itself."""
        image = cv2.imread(str(photos / "cat.png"))[:128, :136, ::-1]
        patches = image.reshape(32, 4, 34, 4, 3).swapaxes(1, 2).reshape(-1, 4, 4, 3)
        write_store(tmp_path / "a", [np.ascontiguousarray(patches)], len(patches), Definition(4))
        cv2.imwrite(str(tmp_path / "cat.png"), np.ascontiguousarray(image[..., ::-1]))
        store = open_store(tmp_path / "a")
        found = picture_of_search(store, Exact(store), tmp_path / "cat.png")
        assert found.distance < 1e-7
        assert found.psnr > 40

    def test_feature_centred(self, photos: Path, tmp_path: Path, cuts: dict[str, np.ndarray]) -> None:
        """Where colour doesn't count, what was found is shown in the colour of what it was found for."""
        patches = cuts["cat"][:128, :136].reshape(32, 4, 34, 4, 3).swapaxes(1, 2).reshape(-1, 4, 4, 3)
        darker = patches - patches.min(axis=(1, 2, 3), keepdims=True)
        write_store(tmp_path / "a", [np.ascontiguousarray(darker)], len(darker), Definition(4, center=True))
        cv2.imwrite(str(tmp_path / "cat.png"), np.ascontiguousarray(cuts["cat"][:128, :136, ::-1]))
        store = open_store(tmp_path / "a")
        found = picture_of_search(store, Exact(store), tmp_path / "cat.png", top_k=1)
        assert found.psnr > 40
        assert abs(darker.astype(int) - patches).mean() > 30

    def test_feature_middle_of_a_large_one(self, store: Store, photos: Path, tmp_path: Path) -> None:
        large = cv2.resize(cv2.imread(str(photos / "cat.png")), (1401, 611), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / "large.png"), large)
        found = picture_of_search(store, Exact(store), tmp_path / "large.png", top_k=1)
        assert (found.picture[28:540, :512] == large[49:561, 444:956]).all()
        assert min(row["x"] for row in found.rows) >= 444

    def test_exception(self, store: Store, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "text.png").write_text("no photo")
        with pytest.raises(UserError, match=r"text.png: not an image"):
            picture_of_search(store, Exact(store), tmp_path / "text.png")
        cv2.imwrite(str(tmp_path / "tiny.png"), np.zeros((3, 50, 3), np.uint8))
        with pytest.raises(UserError, match=r"tiny.png: 50x3 pixels hold no patch of 4"):
            picture_of_search(store, Exact(store), tmp_path / "tiny.png")
        patches = np.zeros((5, 4, 4, 3), np.uint8)
        write_store(tmp_path / "g", [patches[..., :1].copy()], 5, Definition(4, channels=1))
        with pytest.raises(UserError, match=r"g: has 1 channels"):
            picture_of_search(open_store(tmp_path / "g"), Exact(store), photos / "cat.png")


class TestDescribe:
    def test_feature(self, store: Store) -> None:
        facts = describe(store)
        origins = np.array(store.origins)
        each = np.bincount(origins[:, 0])
        assert facts["photos"] == {
            "count": 6,
            "used": 6,
            "min": each.min(),
            "median": np.median(each),
            "max": each.max(),
        }
        assert list(facts["variants"].values()) == np.bincount(origins[:, 3]).tolist()
        contrast = np.sqrt((np.array(store.patches) / 255).reshape(2000, 16, 3).var(axis=1).mean(axis=1))
        assert facts["contrast"]["50"] == pytest.approx(np.median(contrast), abs=1e-5)
        assert facts["contrast"]["0"] == pytest.approx(contrast.min(), abs=1e-5)
        assert facts["bytes"] == sum(path.stat().st_size for path in store.path.iterdir())
        assert (facts["count"], facts["fingerprint"], facts["indexes"]) == (2000, store.fingerprint, [])
        text = "\n".join(lines(facts))
        assert "2000 patches of 4x4 pixels, 3 channels" in text
        assert "Gram matrices of pixels, not centred" in text

    def test_feature_recall_of_an_index(self, store: Store, tmp_path: Path) -> None:
        copy = open_store(shutil.copytree(store.path, tmp_path / "copy"))
        recall = build_index(copy, "hnsw")["recall"]["at_1"]
        assert f"  indexes: hnsw (finds the nearest of {recall:.1%})" in lines(describe(copy))

    def test_feature_of_anything(self, tmp_path: Path) -> None:
        """What was written by other code, and without options."""
        patches = np.zeros((1, 4, 4, 3), np.uint8)
        features = Definition(2, normalize=False, center=True, features=Features("conv2_1", "0" * 64, 4, 2))
        write_store(tmp_path / "f", [patches], 1, features, [np.zeros((1, 10), np.float32)])
        text = "\n".join(lines(describe(open_store(tmp_path / "f"))))
        assert "1 patches of 4x4 pixels" in text
        assert "Gram matrices of conv2_1 of VGG19, patches of 2x2 of its map, centred, not divided by the" in text


def test_settings_named() -> None:
    assert Settings.named(["affine", "original", "affine"]).variants == ("original", "affine")
