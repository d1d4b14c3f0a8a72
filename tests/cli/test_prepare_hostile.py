"""Files made to trip a parser, and links in a circle, through every command that reads photos."""

import json
from pathlib import Path

import cv2
import pytest
import skimage.data

from gramgan_plugin.cli.main import main
from tests.data import damaged_photos

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good photos among many that are not."""
    folder = tmp_path_factory.mktemp("photos")
    for name, data in (*damaged_photos.handmade().items(), *damaged_photos.mutated(80, seed=3)):
        (folder / name).write_bytes(data)
    (folder / "circle.png").symlink_to("circle.png")
    cv2.imwrite(str(folder / "good one.png"), skimage.data.coffee()[..., ::-1])
    cv2.imwrite(str(folder / "good two.jpg"), skimage.data.astronaut()[..., ::-1])
    return folder


BAD = [*sorted(damaged_photos.handmade()), "circle.png"]


class TestOneBadFileAmongMany:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_feature_folder(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], overwrite: bool
    ) -> None:
        more = ["--overwrite"] if overwrite else []
        arguments = ["prepare", "folder", str(photos), "--out", str(tmp_path / "out"), *more]
        assert main([*arguments, "--on-error", "skip"]) == 3
        err = capsys.readouterr().err
        assert [name for name in BAD if f"skipped {name}: " not in err] == []
        assert "skipped second_header.png: damaged: a second IHDR chunk" in err
        assert "good" not in err
        facts = json.loads((tmp_path / "out" / "dataset.json").read_text())
        assert facts["photos"] == 2
        assert main(["prepare", "folder", str(photos), "--out", str(tmp_path / "stop")]) == 2
        assert "photos cannot be used: 0000." in capsys.readouterr().err

    def test_feature_folder_with_lq(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "hr").mkdir()
        (tmp_path / "lq").mkdir()
        good = cv2.imread(str(photos / "good one.png"))
        for name in ("good.png", "circle.png", "second_header.png", "ascii_324_of_8_bits.png"):
            cv2.imwrite(str(tmp_path / "hr" / name), good)
        cv2.imwrite(str(tmp_path / "lq" / "good.png"), cv2.resize(good, (150, 100)))
        for name in ("circle.png", "second_header.png", "ascii_324_of_8_bits.tif"):
            (tmp_path / "lq" / name).symlink_to(name if name == "circle.png" else photos / name)
        out = tmp_path / "out"
        arguments = ["prepare", "folder", str(tmp_path / "hr"), "--lq", str(tmp_path / "lq"), "--out", str(out)]
        assert main([*arguments, "--on-error", "skip"]) == 3
        err = capsys.readouterr().err
        assert "skipped circle.png: its LQ photo circle.png: a symbolic link" in err
        assert "skipped second_header.png: its LQ photo second_header.png: damaged" in err
        assert "its LQ photo ascii_324_of_8_bits.tif: damaged" in err

    def test_feature_patch_database(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "t.patchdb"
        arguments = ["patchdb", "build", "--source", str(photos), "--out", str(out), "--max-patches", "300"]
        assert main([*arguments, "--index", "exact", "--on-error", "skip"]) == 3
        err = capsys.readouterr().err
        assert [name for name in BAD if f"skipped {name}: " not in err] == []

    def test_feature_collect(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert main(["prepare", "collect", str(photos), "--out", str(out), "--min-side", "300"]) == 3
        assert f"failed {photos}/circle.png: a symbolic link" in capsys.readouterr().err
        rows = [json.loads(line) for line in (out / "collected.jsonl").read_text().splitlines()]
        results = {row["from"].rpartition("/")[2]: row["result"] for row in rows}
        assert {results.pop(name) for name in damaged_photos.handmade()} == {"unreadable"}
        assert len(results) == 80 + 3
        assert results["good one.png"] == results["good two.jpg"] == "kept"

    @pytest.mark.parametrize("name", ["second_header.png", "ascii_324_of_8_bits.tif", "undefined_273_of_16_bits.tif"])
    def test_exception_benchmarks(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        source = tmp_path / "Set5"
        source.mkdir()
        (source / "a.png").write_bytes((photos / "good one.png").read_bytes())
        (source / name).write_bytes((photos / name).read_bytes())
        assert main(["prepare", "benchmarks", str(source), "--out", str(tmp_path / "out")]) == 2
        assert f"{source / name}: damaged: " in capsys.readouterr().err
        assert not (tmp_path / "out" / "Set5").exists()


class TestPaths:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("prepare", "folder", "{}", "--out", "out"),
            ("prepare", "collect", "{}", "--out", "out"),
            ("prepare", "benchmarks", "{}", "--out", "out"),
            ("prepare", "verify", "{}"),
            ("patchdb", "build", "--source", "{}", "--out", "out"),
            ("prepare", "folder", "photos", "--out", "{}"),
            ("prepare", "collect", "photos", "--out", "{}"),
            ("prepare", "benchmarks", "photos", "--out", "{}/x"),
            ("patchdb", "build", "--source", "photos", "--out", "{}"),
        ],
    )
    def test_exception_link_in_a_circle(
        self,
        arguments: tuple[str, ...],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("photos").mkdir()
        cv2.imwrite("photos/a.png", skimage.data.coffee()[..., ::-1])
        Path("circle").symlink_to("circle")
        assert main([argument.format("circle") for argument in arguments]) == 2
        assert "circle" in capsys.readouterr().err

    @pytest.mark.parametrize("form", [("prepare", "folder"), ("prepare", "collect"), ("prepare", "benchmarks")])
    def test_exception_home_of_nobody(
        self, form: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([*form, "~nobody-of-this-name/photos", "--out", str(tmp_path / "out")]) == 2
        assert "nobody-of-this-name/photos: no such folder" in capsys.readouterr().err
