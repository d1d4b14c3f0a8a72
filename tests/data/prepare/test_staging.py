import errno
import os
from pathlib import Path

import lmdb
import pytest

from gramgan_plugin.data.prepare.staging import MARKER, staged_folder
from gramgan_plugin.errors import UserError


def fill(folder: Path, text: str) -> None:
    (folder / MARKER).write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestStagedFolder:
    def test_smoke(self, tmp_path: Path) -> None:
        out = tmp_path / "new" / "out"
        with staged_folder(out) as folder:
            assert folder.parent == out.parent
            assert folder.name == f"out.tmp-{os.getpid()}"
            fill(folder, "1")
            assert not out.exists()
        assert (out / "sub" / "file").read_text() == "1"
        assert names(out.parent) == ["out"]

    def test_feature_syncs_every_file_and_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[tuple[int, int]] = []

        def fsync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            synced.append((status.st_dev, status.st_ino))

        monkeypatch.setattr(os, "fsync", fsync)
        out = tmp_path / "out"
        with staged_folder(out) as folder:
            fill(folder, "1")
        for path in (out / MARKER, out / "sub" / "file", out / "sub", out, tmp_path):
            assert (path.stat().st_dev, path.stat().st_ino) in synced

    @pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(1)])
    def test_feature_failure_leaves_nothing(self, tmp_path: Path, error: BaseException) -> None:
        def build() -> None:
            with staged_folder(tmp_path / "out") as folder:
                fill(folder, "1")
                raise error

        with pytest.raises(type(error)):
            build()
        assert names(tmp_path) == []

    def test_feature_overwrite(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for text in ("1", "2"):
            with staged_folder(out, overwrite=True) as folder:
                fill(folder, text)
        assert (out / "sub" / "file").read_text() == "2"
        assert names(tmp_path) == ["out"]

    def test_feature_failed_overwrite_keeps_the_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "out"
        with staged_folder(out) as folder:
            fill(folder, "old")
        with pytest.raises(RuntimeError), staged_folder(out, overwrite=True) as folder:
            raise RuntimeError
        assert (out / "sub" / "file").read_text() == "old"

        rename = Path.rename

        def failing(self: Path, target: Path) -> Path:
            if ".tmp-" in self.name:
                raise OSError(errno.EIO, "broken disk")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(UserError), staged_folder(out, overwrite=True) as folder:
            fill(folder, "new")
        assert (out / "sub" / "file").read_text() == "old"
        assert names(tmp_path) == ["out"]

    def test_exception_taken(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "thesis.tex").touch()
        with pytest.raises(UserError, match="exists already"), staged_folder(out):
            pass
        with (
            pytest.raises(UserError, match="was not written by 'prepare'"),
            staged_folder(out, overwrite=True),
        ):
            pass
        assert names(out) == ["thesis.tex"]

    def test_exception_taken_meanwhile(self, tmp_path: Path) -> None:
        out = tmp_path / "out"

        def build() -> None:
            with staged_folder(out) as folder:
                fill(folder, "1")
                out.mkdir()

        with pytest.raises(UserError, match="exists already"):
            build()
        assert names(tmp_path) == ["out"]

    @pytest.mark.parametrize(
        "error",
        [OSError(errno.ENOSPC, "full"), lmdb.DiskError("full"), lmdb.Error("commit: Input/output error")],
    )
    def test_exception_no_space(self, tmp_path: Path, error: Exception) -> None:
        with (
            pytest.raises(UserError, match="no space left on the disk") as caught,
            staged_folder(tmp_path / "out"),
        ):
            raise error
        assert "\n" not in str(caught.value)
        assert names(tmp_path) == []

    def test_exception_parent_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file"), staged_folder(tmp_path / "file" / "out"):
            pass

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_exception_no_space_from_the_system(self, tmp_path: Path) -> None:
        def build() -> None:
            with staged_folder(tmp_path / "out"), Path("/dev/full").open("w") as full:
                full.write("x")

        with pytest.raises(UserError, match="no space left on the disk"):
            build()

    def test_exception_other_errors_are_ours(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="Bad file descriptor"), staged_folder(tmp_path / "out"):
            os.close(-1)
        assert names(tmp_path) == []
