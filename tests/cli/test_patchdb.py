import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import skimage.data

from gramgan_plugin.cli.main import main
from gramgan_plugin.patchdb import search
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.store import Store, open_store
from tests.vgg_reference import write_weights


@pytest.fixture(autouse=True)
def indexes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Which indexes were asked for."""
    asked: list[tuple[Path, str]] = []

    def build_index(store: Store, kind: str) -> dict[str, Any]:
        asked.append((store.path, kind))
        return {"kind": "tree" if kind == "auto" else kind, "recall": {"at_1": 0.995}}

    monkeypatch.setattr(search, "build_index", build_index)
    return asked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), skimage.data.coffee()[100:220, 200:330, ::-1])
    cv2.imwrite(str(folder / "more" / "b.jpg"), skimage.data.chelsea()[60:190, 120:260, ::-1])
    return folder


@pytest.fixture
def database(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "t.patchdb"
    assert main(["patchdb", "build", "--source", str(photos), "--out", str(out), "--max-patches", "600"]) == 0
    capsys.readouterr()
    return out


class TestBuild:
    def test_smoke(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], indexes: list[tuple[Path, str]]
    ) -> None:
        out = tmp_path / "t.patchdb"
        given = ["--source", photos, "--recursive", "--out", out, "--max-patches", 600, "--index", "exact"]
        assert main(["patchdb", "build", *map(str, given)]) == 0
        captured = capsys.readouterr()
        printed = captured.out.splitlines()
        assert printed[0] == f"{out}: 600 patches of 2 photos"
        assert printed[1].startswith("  variants: original ")
        assert "are flat (" in printed[2]
        assert printed[2].endswith("were left out as near-duplicates")
        assert printed[-2] == "  index: exact (finds the nearest of 99.5%)"
        assert printed[-1] == f"next: train.gram_patch_opt.database: {out}"
        assert "2/2 photos" in captured.err
        assert indexes == [(out, "exact")]
        assert open_store(out, verify=True).count == 600

    def test_feature_options(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "t.patchdb"
        given: list[Any] = ["--source", photos, "--source", photos / "more", "--out", out, "--patch-size", 6]
        given += ["--center", "--no-normalize", "--variants", "affine, original", "--min-contrast", 0.02]
        given += ["--thin", 0, "--seed", 7, "--workers", 1]
        assert main(["patchdb", "build", *map(str, given)]) == 0
        assert "up to 200000 were requested" in capsys.readouterr().out
        store = open_store(out)
        assert store.definition == Definition(6, normalize=False, center=True)
        assert store.manifest["options"] == {
            "variants": ["original", "affine"],
            "min_contrast": 0.02,
            "thin": 0.0,
            "seed": 7,
            "magnitude": 0.003,
            "max_patches": 200_000,
        }
        assert sorted(record["name"] for record in store.sources()) == ["1-photos/a.png", "2-more/b.jpg"]

    def test_feature_skips(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (photos / "bad.png").write_text("x")
        given = ["patchdb", "build", "--source", str(photos), "--out", str(tmp_path / "t.patchdb")]
        assert main(given) == 2
        assert "bad.png" in capsys.readouterr().err
        assert main([*given, "--on-error", "skip"]) == 3
        assert "skipped bad.png: not an image" in capsys.readouterr().err

    def test_exception(self, photos: Path, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for given, message in (
            ([], "t.patchdb: exists already"),
            (["--overwrite", "--workers", "0"], "--workers 0: must be at least 1"),
            (["--overwrite", "--variants", "up"], "--variants: up"),
            (["--overwrite", "--max-patches", "-5"], "--max-patches -5: must be 1 to"),
        ):
            assert main(["patchdb", "build", "--source", str(photos), "--out", str(database), *given]) == 2
            error = capsys.readouterr().err
            assert message in error
            assert error.startswith("basicsr patchdb: ")
            assert len(error.splitlines()) == 1
        assert open_store(database, verify=True).count == 600

    def test_an_index_by_its_old_name(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        given = ["patchdb", "build", "--source", str(photos), "--out", str(tmp_path / "t.patchdb"), "--index", "kdtree"]
        with pytest.raises(SystemExit, match="2"):
            main(given)
        assert "got 'kdtree'; write 'tree'" in capsys.readouterr().err


class TestUpdate:
    def test_smoke(
        self, photos: Path, database: Path, capsys: pytest.CaptureFixture[str], indexes: list[tuple[Path, str]]
    ) -> None:
        before = open_store(database).fingerprint
        given = [str(database), "--source", str(photos), "--recursive", "--max-patches", "700"]
        assert main(["patchdb", "update", *given]) == 0
        printed = capsys.readouterr().out
        assert "700 patches of 2 photos, 1 of them new" in printed
        assert "1 photos were there already and not added again" in printed
        after = open_store(database, verify=True)
        assert (after.count, after.fingerprint == before) == (700, False)
        assert indexes[-1] == (database, "auto")


def test_features(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that computes them takes the weights."""
    weights = ["--vgg-weights", str(write_weights(tmp_path / "vgg.pth"))]
    one, two, both, picture = (str(tmp_path / name) for name in ("a.patchdb", "b.patchdb", "c.patchdb", "s.png"))
    for source, out in ((photos, one), (photos / "more", two)):
        given = ["--source", str(source), "--out", out, "--max-patches", "200", "--features", "conv1_1"]
        assert main(["patchdb", "build", *given, *weights]) == 0
    assert main(["patchdb", "merge", one, two, "--out", both, *weights]) == 0
    assert main(["patchdb", "update", one, "--source", str(photos / "more"), *weights]) == 0
    assert main(["patchdb", "search", one, str(photos / "a.png"), "--out", picture, *weights]) == 0
    assert main(["patchdb", "info", both, "--no-sheet"]) == 0
    assert "Gram matrices of conv1_1 of VGG19, patches of 4x4 of its map" in capsys.readouterr().out
    assert open_store(Path(both), verify=True).grams.shape == (400, 2080)
    other = ["--vgg-weights", str(write_weights(tmp_path / "other.pth", seed=1))]
    for given in (["update", one, "--source", str(photos)], ["search", one, str(photos / "a.png")]):
        assert main(["patchdb", *given, *other]) == 2
        error = capsys.readouterr().err
        assert "a.patchdb: was built with other VGG19 weights than" in error
        assert len(error.splitlines()) == 1


class TestMerge:
    def test_smoke(self, photos: Path, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other, out = tmp_path / "other.patchdb", tmp_path / "both.patchdb"
        given = ["--source", str(photos / "more"), "--out", str(other), "--max-patches", "300"]
        assert main(["patchdb", "build", *given]) == 0
        assert main(["patchdb", "merge", str(database), str(other), "--out", str(out)]) == 0
        assert f"{out}: " in capsys.readouterr().out
        merged = open_store(out, verify=True)
        assert 850 < merged.count <= 900
        assert {record["name"] for record in merged.sources()} == {"a.png", "b.jpg"}
        assert main(["patchdb", "merge", str(database), "--out", str(tmp_path / "x.patchdb")]) == 2
        assert "name at least two databases" in capsys.readouterr().err


class TestInfo:
    def test_smoke(self, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        json_file = tmp_path / "facts.json"
        assert main(["patchdb", "info", str(database), "--json", str(json_file), "--verify"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"{database}: 600 patches of 4x4 pixels, 3 channels")
        assert "all files are as they were written" in printed
        assert cv2.imread(str(tmp_path / "t.png")).shape[1] == 64 + 48 * 26
        facts = json.loads(json_file.read_text())
        assert (facts["format"], facts["count"]) == (1, 600)
        assert facts["fingerprint"] == open_store(database).fingerprint

    def test_feature_sheet(self, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["patchdb", "info", str(database), "--no-sheet"]) == 0
        assert not list(tmp_path.glob("*.png"))
        assert main(["patchdb", "info", str(database), "--sheet", str(tmp_path / "new" / "s.png")]) == 0
        assert (tmp_path / "new" / "s.png").exists()
        assert main(["patchdb", "info", str(database), "--sheet", str(tmp_path / "s.gif")]) == 2

    def test_exception_damaged(self, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = bytearray((database / "grams.npy").read_bytes())
        data[1000] ^= 8
        (database / "grams.npy").write_bytes(data)
        assert main(["patchdb", "info", str(database), "--no-sheet"]) == 0
        assert main(["patchdb", "info", str(database), "--no-sheet", "--verify"]) == 2
        assert "grams.npy: damaged (its SHA-256" in capsys.readouterr().err


class TestSearch:
    def test_smoke(self, photos: Path, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        picture, facts = tmp_path / "s.png", tmp_path / "s.json"
        image = photos / "more" / "b.jpg"
        given = [database, image, "--out", picture, "--top-k", 3, "--json", facts]
        assert main(["patchdb", "search", *map(str, given)]) == 0
        assert f"{picture}: mean Gram distance 0.0" in capsys.readouterr().out
        assert cv2.imread(str(picture)).shape[1] > 2 * 3 * 140
        found = json.loads(facts.read_text())
        assert len(found["patches"]) == 12
        assert [len(row["found"]) for row in found["patches"]] == [3] * 12
        assert found["database"] == open_store(database).fingerprint

    def test_exception(self, database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["patchdb", "search", str(database), str(tmp_path / "no.png")]) == 2
        assert "no.png: no such file" in capsys.readouterr().err
        assert main(["patchdb", "search", str(tmp_path / "no.patchdb"), "x.png"]) == 2
        assert "no.patchdb: no such patch database" in capsys.readouterr().err
        assert main(["patchdb", "search", str(database), "x.png", "--top-k", "0"]) == 2
