import collections
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.candidates import affine_warp, downsampled, random_theta
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.making import patch_collection, reservoir, sampling
from gramgan_plugin.patchdb.making.building import build, merge, update
from gramgan_plugin.patchdb.making.settings import Settings
from gramgan_plugin.patchdb.making.source_photos import Reading
from gramgan_plugin.patchdb.store import Store, open_store
from gramgan_plugin.patchdb.writing import write_store
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter

QUIET = {"progress": False, "reading": Reading(workers=2)}
ALL = 1_000_000


def built(
    photos: Path, out: Path, max_patches: int = 900, definition: Definition | None = None, **settings: Any
) -> Store:
    given = {"definition": definition, "settings": Settings(**settings), **QUIET}
    build([photos], out, max_patches=max_patches, **given)
    return open_store(out, verify=True)


def names_of(store: Store) -> list[str]:
    return [Path(record["name"]).stem for record in store.sources()]


def cells_of(store: Store) -> dict[tuple[str, int], int]:
    """Number of patches by photo and variant."""
    names = names_of(store)
    return collections.Counter((names[photo], variant) for photo, _, _, variant in store.origins.tolist())


def copies_of(image: np.ndarray, sha256: str, seed: int = 0) -> list[np.ndarray]:
    """The three variants by the loss's own functions, as 8 bits."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 255
    even = tensor[..., : image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    theta = random_theta(1, 1, 0.003, (seed, int(sha256[:8], 16), int(sha256[8:16], 16)))[:, 0]
    found = [tensor, downsampled(even, 2), affine_warp(tensor, theta)]
    return [(255 * copy[0].permute(1, 2, 0).clamp(0, 1)).round().byte().numpy() for copy in found]


@pytest.fixture(scope="module")
def everything(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All that is not flat, nothing thinned."""
    return built(photos, tmp_path_factory.mktemp("all") / "a.patchdb", ALL, thin=0)


class TestBuild:
    def test_smoke(self, photos: Path, tmp_path: Path) -> None:
        report = build([photos], tmp_path / "deep" / "a.patchdb", max_patches=500, **QUIET)
        store = open_store(report.path, verify=True)
        assert (store.count, report.photos, report.new, report.repeated, report.skipped) == (500, 6, 6, 0, [])
        assert store.manifest == report.manifest
        assert sum(store.manifest["counts"]["by_variant"].values()) == 500
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.patchdb"]
        assert not list(report.path.glob(".*"))

    @pytest.mark.parametrize("definition", [Definition(4), Definition(7, center=True), Definition(2, normalize=False)])
    def test_feature_patches_are_where_they_are_said_to_be(
        self, photos: Path, cuts: dict[str, np.ndarray], tmp_path: Path, definition: Definition
    ) -> None:
        """Each is cut again from the photo or from the copies that the loss's functions make of it."""
        store = built(photos, tmp_path / "a.patchdb", 700, definition, seed=3)
        p = definition.patch_size
        copies = [copies_of(cuts[Path(line["name"]).stem], line["sha256"], 3) for line in store.sources()]
        for patch, (photo, y, x, variant) in zip(store.patches, store.origins.tolist(), strict=True):
            expected = copies[photo][variant][y : y + p, x : x + p].astype(int)
            assert abs(expected - patch).max() <= (1 if variant else 0)  # a level, where rounding decides
        values = np.array(store.patches, np.float64).reshape(store.count, p * p, 3) / 255
        assert np.sqrt(values.var(axis=1).mean(axis=1)).min() >= 0.01
        if definition.center:
            values -= values.mean(axis=1, keepdims=True)
        grams = np.einsum("nli,nlj->nij", values, values) / (p * p if definition.normalize else 1)
        triangle = grams[:, *np.triu_indices(3)] * np.sqrt([1, 2, 2, 1, 2, 1])
        np.testing.assert_allclose(store.grams, triangle, rtol=3e-7, atol=1e-9)

    def test_feature_nothing_is_missed(self, photos: Path, cuts: dict[str, np.ndarray], everything: Store) -> None:
        """Without limit: every patch of each copy's grid that is not flat; the report's numbers are those."""
        store = everything
        present = {tuple(row) for row in store.origins.tolist()}
        flat = missed = 0
        for photo, line in enumerate(store.sources()):
            for variant, copy in enumerate(copies_of(cuts[Path(line["name"]).stem], line["sha256"])):
                own = [(y, x) for number, y, x, kind in present if (number, kind) == (photo, variant)]
                if not own:
                    assert line["usable"][variant] == 0
                    flat += line["examined"][variant]
                    continue
                examined = 0
                top, left = own[0][0] % 4, own[0][1] % 4
                for y in range(top, copy.shape[0] - 3, 4):
                    for x in range(left, copy.shape[1] - 3, 4):
                        examined += 1
                        contrast = np.sqrt((copy[y : y + 4, x : x + 4] / 255).var(axis=(0, 1)).mean())
                        missed += contrast > 0.0101 and (photo, y, x, variant) not in present
                        flat += contrast < 0.01
                assert line["examined"][variant] == examined
        counts = store.manifest["counts"]
        assert counts["examined"] - counts["usable"] == pytest.approx(flat, abs=3)
        assert flat > 500
        assert counts["usable"] == store.count + counts["near_duplicates"]
        assert missed == counts["near_duplicates"] < 10  # equal ones, pixel by pixel
        assert len(np.unique(store.patches.reshape(store.count, -1), axis=0)) == store.count

    def test_feature_equal_shares(self, everything: Store, photos: Path, tmp_path: Path) -> None:
        """Each photo and variant gives as much as the others; what tiny ones don't have, the others give."""
        has = cells_of(everything)
        for most in (120, 900, 3000):
            found = cells_of(built(photos, tmp_path / f"{most}.patchdb", most, thin=0))
            level = max(found.values())
            assert sum(found.values()) == most
            for cell, number in has.items():
                assert found[cell] in ({level, level - 1} if number >= level else {number})
        assert found["tiny", 1] < 5 < level

    def test_feature_near_duplicates(self, photos: Path, everything: Store, tmp_path: Path) -> None:
        """No two agree in means and roots of covariances; who is left out has somebody like him inside."""

        def cells(store: Store) -> list[tuple[int, ...]]:
            pixels = np.array(store.patches, np.float64).reshape(store.count, 16, 3)
            covariances = np.stack([np.cov(patch.T, bias=True)[np.triu_indices(3)] for patch in pixels])
            numbers = [pixels.mean(axis=1), np.sign(covariances) * np.sqrt(abs(covariances))]
            return [tuple(row) for row in np.rint(np.concatenate(numbers, axis=1) / 7).astype(int).tolist()]

        thinned = built(photos, tmp_path / "a.patchdb", ALL, thin=7)
        kept, before = cells(thinned), cells(everything)
        assert len(set(kept)) >= 0.999 * len(kept)  # rounding may decide otherwise on a border
        assert set(kept) == set(before)
        assert len(kept) < 0.8 * len(before)
        counts = thinned.manifest["counts"]
        assert counts["near_duplicates"] == counts["usable"] - thinned.count

    def test_feature_count_of_near_duplicates(self, photos: Path, tmp_path: Path) -> None:
        """With a limit: those that would be in, were it not for another like them."""
        limited = built(photos, tmp_path / "a.patchdb", 2000, thin=7)
        left_out = limited.manifest["counts"]["near_duplicates"]
        assert left_out > 20
        # Without thinning, exactly so many more have to be asked for to reach as far.
        reach = 2000 + left_out
        reach -= built(photos, tmp_path / "b.patchdb", reach, thin=0).manifest["counts"]["near_duplicates"]
        further, less = (built(photos, tmp_path / f"{most}.patchdb", most, thin=0) for most in (reach, reach - 1))
        rows, more, fewer = ({tuple(row) for row in store.origins.tolist()} for store in (limited, further, less))
        assert rows <= more
        assert not rows <= fewer

    def test_feature_order_of_reading(
        self, photos: Path, cuts: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other names, hence another order, other files, other sizes of blocks, more threads: the same arrays."""
        first = [built(photos, tmp_path / f"first-{most}.patchdb", most) for most in (900, ALL)]
        other = tmp_path / "other"
        other.mkdir()
        for number, name in enumerate(reversed(list(cuts))):
            cv2.imwrite(str(other / f"{number}.bmp"), np.ascontiguousarray(cuts[name][..., ::-1]))
        for module, name, size in (
            (reservoir, "ROWS_AT_ONCE", 100),
            (patch_collection, "PATCHES_AT_ONCE", 77),
            (sampling, "PATCHES_AT_ONCE", 50),
        ):
            monkeypatch.setattr(module, name, size)
        for before, most in zip(first, (900, ALL), strict=True):
            build([other], tmp_path / f"{most}.patchdb", max_patches=most, reading=Reading(workers=4), progress=False)
            store = open_store(tmp_path / f"{most}.patchdb")
            assert store.fingerprint == before.fingerprint
            assert store.manifest["counts"] == before.manifest["counts"]
        assert built(photos, tmp_path / "c.patchdb", seed=1).fingerprint != first[0].fingerprint

    def test_feature_lmdb(self, photos: Path, tmp_path: Path) -> None:
        """The same photos in an LMDB, one of them twice, and two sources of which one is the other's copy."""
        writer = LmdbWriter(tmp_path / "GT.lmdb")
        files = sorted(photos.iterdir())
        for number, file in enumerate([*files, files[1]]):
            height, width = cv2.imread(str(file)).shape[:2]
            writer.put({f"{number:06d}_s001": file.read_bytes()}, {f"{number:06d}_s001": (height, width, 3)}, 1)
        writer.close()
        first = built(photos, tmp_path / "a.patchdb")
        report = build([tmp_path / "GT.lmdb"], tmp_path / "b.patchdb", max_patches=900, **QUIET)
        assert (report.photos, report.repeated) == (6, 1)
        assert report.manifest["fingerprint"] == first.fingerprint
        report = build([photos, tmp_path / "GT.lmdb"], tmp_path / "c.patchdb", max_patches=900, **QUIET)
        assert (report.photos, report.repeated) == (6, 7)
        assert report.manifest["fingerprint"] == first.fingerprint
        names = {record["name"] for record in open_store(tmp_path / "c.patchdb").sources()}
        assert names == {f"1-{photos.name}/{file.name}" for file in files}

    @pytest.mark.parametrize("variants", [("original",), ("down", "affine")])
    def test_feature_variants(self, photos: Path, tmp_path: Path, variants: tuple[str, ...]) -> None:
        store = built(photos, tmp_path / "a.patchdb", 300, variants=variants)
        present = {("original", "down", "affine")[number] for number in store.origins[:, 3]}
        assert present == set(variants) == set(store.manifest["variants"])

    def test_feature_overwrite(self, photos: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.patchdb"
        first = built(photos, out).fingerprint
        with pytest.raises(UserError, match=r"a.patchdb: exists already"):
            build([photos], out, **QUIET)
        build([photos], out, max_patches=10, overwrite=True, **QUIET)
        assert open_store(out).fingerprint != first
        other = tmp_path / "precious"
        other.mkdir()
        (other / "work.txt").touch()
        (out / "notes.txt").touch()
        LmdbWriter(tmp_path / "GT.lmdb").close()
        (tmp_path / "GT.lmdb" / "manifest.json").write_text("{}")
        for path, what in ((other, "work.txt"), (out, "notes.txt"), (tmp_path / "GT.lmdb", "data.mdb")):
            with pytest.raises(UserError, match=rf"holds {what}, which is not part of "):
                build([photos], path, overwrite=True, **QUIET)
        with pytest.raises(UserError, match=r"holds notes.txt"):
            update(out, [photos], **QUIET)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["GT.lmdb", "a.patchdb", "precious"]

    def test_feature_damaged_photos(self, photos: Path, tmp_path: Path) -> None:
        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        data = (photos / "cat.png").read_bytes()
        (folder / "broken.png").write_bytes(data[: len(data) // 2])
        cv2.imwrite(str(folder / "small.png"), np.zeros((3, 9, 3), np.uint8))
        with pytest.raises(UserError, match=r"1 of 8 photos .*: broken.png \(.*--on-error"):
            build([folder], tmp_path / "a.patchdb", **QUIET)
        assert [path.name for path in tmp_path.iterdir()] == ["photos"]
        report = build(
            [folder], tmp_path / "a.patchdb", max_patches=900, reading=Reading(on_error="skip"), progress=False
        )
        assert [name for name, _ in report.skipped] == ["broken.png", "small.png"]
        assert report.skipped[1][1] == "9x3, smaller than a patch of 4 pixels"
        assert report.manifest["fingerprint"] == built(photos, tmp_path / "b.patchdb").fingerprint

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"max_patches": 0}, "--max-patches 0: must be 1 to 10000000"),
            ({"max_patches": 10_000_001}, "--max-patches 10000001"),
            ({"definition": Definition(1)}, "--patch-size 1: must be 2 to 32"),
            ({"settings": Settings(variants=("orginal",))}, "--variants: orginal"),
            ({"settings": Settings(variants=())}, "--variants: none"),
            ({"settings": Settings(thin=-1)}, "--thin -1"),
            ({"settings": Settings(thin=float("nan"))}, "--thin nan"),
            ({"settings": Settings(min_contrast=0.5)}, r"--min-contrast 0\.5"),
            ({"settings": Settings(seed=-1)}, "--seed -1"),
            ({"settings": Settings(min_contrast=0.49)}, r"no patch of 6 photos has a contrast of 0.49"),
        ],
    )
    def test_exception(self, photos: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            build([photos], tmp_path / "a.patchdb", **given, **QUIET)
        assert not list(tmp_path.iterdir())

    def test_exception_sources(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nowhere: no such folder"):
            build([tmp_path / "nowhere"], tmp_path / "a.patchdb", **QUIET)
        with pytest.raises(UserError, match=r"nowhere.lmdb: no such LMDB"):
            build([tmp_path / "nowhere.lmdb"], tmp_path / "a.patchdb", **QUIET)
        with pytest.raises(UserError, match="given twice"):
            build([photos, photos / "." / "../" / photos.name], tmp_path / "a.patchdb", **QUIET)


@pytest.fixture
def halves(photos: Path, tmp_path: Path) -> list[Path]:
    """The photos in two folders, one of them in both."""
    files = sorted(photos.iterdir())
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, part in zip(folders, (files[:4], files[3:]), strict=True):
        folder.mkdir()
        for file in part:
            shutil.copy(file, folder)
    return folders


class TestUpdate:
    @pytest.mark.parametrize("max_patches", [300, 2500, ALL])
    def test_feature_as_if_built_at_once(
        self, photos: Path, halves: list[Path], tmp_path: Path, max_patches: int
    ) -> None:
        whole = built(photos, tmp_path / "whole.patchdb", max_patches)
        part = built(halves[0], tmp_path / "part.patchdb", max_patches)
        report = update(part.path, [halves[1]], **QUIET)
        assert (report.photos, report.new, report.repeated) == (6, 2, 1)
        assert report.manifest["fingerprint"] == whole.fingerprint
        assert report.manifest["counts"] == whole.manifest["counts"]
        assert report.manifest["options"] == whole.manifest["options"]
        after = open_store(part.path, verify=True)
        assert names_of(after) == names_of(whole)
        assert part.patches.shape == (part.count, 4, 4, 3)  # what was open can still be read
        assert not [path for path in tmp_path.iterdir() if "patchdb." in path.name]

    def test_feature_nothing_new(self, photos: Path, tmp_path: Path) -> None:
        before = built(photos, tmp_path / "a.patchdb").fingerprint
        report = update(tmp_path / "a.patchdb", [photos], **QUIET)
        assert (report.new, report.repeated, report.manifest["fingerprint"]) == (0, 6, before)

    def test_feature_other_limit(self, photos: Path, halves: list[Path], tmp_path: Path) -> None:
        """Fewer: as if it had been built so. More: the new ones fill it up."""
        part = tmp_path / "part.patchdb"
        built(halves[0], part)
        report = update(part, [halves[1]], max_patches=200, **QUIET)
        assert report.manifest["fingerprint"] == built(photos, tmp_path / "whole.patchdb", 200).fingerprint
        shutil.rmtree(part)
        old = cells_of(built(halves[0], part))
        assert update(part, [halves[1]], max_patches=1500, **QUIET).manifest["count"] == 1500
        new = cells_of(open_store(part))
        assert all(0.9 * number <= new[cell] <= number for cell, number in old.items())

    def test_feature_an_index_of_the_old_one_goes(self, photos: Path, halves: list[Path], tmp_path: Path) -> None:
        built(halves[0], tmp_path / "a.patchdb")
        (tmp_path / "a.patchdb" / "index").mkdir()
        update(tmp_path / "a.patchdb", [halves[1]], **QUIET)
        assert not (tmp_path / "a.patchdb" / "index").exists()

    def test_exception(self, photos: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"a.patchdb: no such patch database"):
            update(tmp_path / "a.patchdb", [photos], **QUIET)
        store = built(photos, tmp_path / "a.patchdb")
        with (store.path / "patches.npy").open("r+b") as file:
            file.seek(500)
            file.write(b"\0\1\2\3")
        with pytest.raises(UserError, match=r"patches.npy: damaged"):
            update(store.path, [photos], **QUIET)
        write_store(tmp_path / "b.patchdb", [np.zeros((5, 4, 4, 3), np.uint8)], 5, Definition(4))
        with pytest.raises(UserError, match="cannot be added to"):
            update(tmp_path / "b.patchdb", [photos], **QUIET)


class TestMerge:
    @pytest.mark.parametrize("order", [1, -1])
    def test_feature_as_if_built_at_once(self, photos: Path, halves: list[Path], tmp_path: Path, order: int) -> None:
        whole = built(photos, tmp_path / "whole.patchdb")
        for number, folder in enumerate(halves):
            built(folder, tmp_path / f"{number}.patchdb")
        parts = [tmp_path / "0.patchdb", tmp_path / "1.patchdb"][::order]
        report = merge(parts, tmp_path / "both.patchdb", max_patches=900)
        assert report.manifest["fingerprint"] == whole.fingerprint
        assert report.photos == 6
        everything = merge(parts, tmp_path / "all.patchdb").manifest
        counts = [open_store(part).count for part in parts]
        shared = cells_of(open_store(parts[0])).keys() & cells_of(open_store(parts[1])).keys()
        assert 900 < everything["count"] < sum(counts)
        assert shared

    def test_feature_other_settings(self, photos: Path, halves: list[Path], tmp_path: Path) -> None:
        built(halves[0], tmp_path / "a.patchdb", variants=("affine",), thin=2.0, seed=1)
        built(halves[1], tmp_path / "b.patchdb", variants=("original",), min_contrast=0.005)
        options = merge([tmp_path / "a.patchdb", tmp_path / "b.patchdb"], tmp_path / "c.patchdb").manifest["options"]
        assert options["variants"] == ["original", "affine"]
        assert (options["thin"], options["min_contrast"], options["seed"]) == (2.0, 0.005, 1)
        assert open_store(tmp_path / "c.patchdb", verify=True).count > 1000

    def test_exception(self, photos: Path, tmp_path: Path) -> None:
        built(photos, tmp_path / "a.patchdb")
        for name, other in (("patch_size", Definition(8)), ("center", Definition(4, center=True))):
            built(photos, tmp_path / "b.patchdb", 100, other)
            with pytest.raises(UserError, match=rf"b.patchdb: has {name} .*, not .*a.patchdb"):
                merge([tmp_path / "a.patchdb", tmp_path / "b.patchdb"], tmp_path / "c.patchdb")
            shutil.rmtree(tmp_path / "b.patchdb")
        with pytest.raises(UserError, match="at least two"):
            merge([tmp_path / "a.patchdb"], tmp_path / "c.patchdb")
        with pytest.raises(UserError, match="exists already"):
            merge([tmp_path / "a.patchdb"] * 2, tmp_path / "a.patchdb")
