import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest

from gramgan_plugin.errors import Preempted, UserError
from gramgan_plugin.prepare.prepared_folder import DATA_SET, MARKER
from gramgan_plugin.utils.interruptions import TerminatedError
from gramgan_plugin.utils.staging import staged_folder, staging


def fill(folder: Path, text: str) -> None:
    (folder / MARKER).write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text(text)


def mark(folder: Path, name: str = ".moved.json") -> None:
    """As a process does before it moves a folder aside, or fills it."""
    (folder / name).write_text('{"host": "here", "pid": 1}')


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestStaging:
    """What interrupted processes leave behind; see test_survival.py for those that are really killed."""

    def test_feature_kept_and_taken_over(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"

        def build(job: str, worth: str, error: BaseException) -> bool:
            with staging(out, DATA_SET, job=job) as stage:
                stage.work_done = lambda: worth
                resumed = stage.resumed
                (stage.path / "work").touch()
                if error is not None:
                    raise error
            return resumed

        for worth, error, kept in (
            ("", KeyboardInterrupt(), False),
            ("half is done", RuntimeError("bug"), False),
            ("half is done", UserError("a photo is damaged"), False),
            ("half is done", KeyboardInterrupt(), True),
        ):
            with pytest.raises(type(error)):
                build("a", worth, error)
            assert bool(names(tmp_path)) == kept
        assert names(tmp_path) == ["out.unfinished"]
        assert "half is done, kept in out.unfinished" in capsys.readouterr().err
        with pytest.raises(UserError, match=r"no space left .*: half is done, kept"):
            build("a", "half is done", OSError(errno.ENOSPC, "full"))
        assert names(tmp_path) == ["out.unfinished"]
        with pytest.raises(KeyboardInterrupt), staging(out, DATA_SET, job="a"):  # before it says what is done
            raise KeyboardInterrupt
        assert "there is earlier work, kept in out.unfinished" in capsys.readouterr().err
        assert names(tmp_path) == ["out.unfinished"]
        assert build("a", "", None) is True  # type: ignore[arg-type]
        assert names(tmp_path) == ["out"]
        assert names(out) == ["work"]

    @pytest.mark.parametrize("name", ["out.unfinished", "out.moved-aside"])
    @pytest.mark.parametrize("kind", ["file", "folder", "signs", "foreign mark", "link", "link to an empty one"])
    @pytest.mark.parametrize("overwrite", [True, False])
    def test_exception_in_the_way(self, tmp_path: Path, name: str, kind: str, overwrite: bool) -> None:
        """Nothing is deleted, moved or filled that this package has not written, and nothing is made first."""
        mine = tmp_path / ("mine" if "link" in kind else name)
        if kind == "file":
            mine.write_text("years")
        else:
            mine.mkdir()
            for file in [] if kind == "link to an empty one" else ["thesis.tex", MARKER, "manifest.json", ".lock"]:
                (mine / file).write_text("years")
            if kind == "foreign mark":
                for file in (".maker.json", ".moved.json"):
                    (mine / file).write_text('{"name": "my own"}')
            if kind == "folder":
                for file in (MARKER, "manifest.json", ".lock"):
                    (mine / file).unlink()
        if "link" in kind:
            (tmp_path / name).symlink_to(mine)
        if overwrite:
            (tmp_path / "out").mkdir()
            fill(tmp_path / "out", "old")
        before = sorted((path, path.is_file() and path.read_text()) for path in tmp_path.rglob("*"))
        with (
            pytest.raises(UserError, match=rf"{name}: is in the way"),
            staging(tmp_path / "out", DATA_SET, overwrite=overwrite),
        ):
            raise AssertionError
        assert sorted((path, path.is_file() and path.read_text()) for path in tmp_path.rglob("*")) == before

    def test_feature_what_a_killed_process_moved_aside_is_deleted(self, tmp_path: Path) -> None:
        for name in ("out", "out.moved-aside"):
            (tmp_path / name).mkdir()
            fill(tmp_path / name, "old")
        mark(tmp_path / "out.moved-aside")
        with staging(tmp_path / "out", DATA_SET, overwrite=True) as stage:
            fill(stage.path, "new")
        assert names(tmp_path) == ["out"]
        assert (tmp_path / "out" / MARKER).read_text() == "new"

    @pytest.mark.parametrize("names_are_deleted", [sorted, lambda found: sorted(found, reverse=True)])
    def test_feature_killed_while_deleting(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_are_deleted: Callable[[list[Path]], list[Path]]
    ) -> None:
        """At each file and folder that it deletes of a leftover; the next one finds the rest, whatever the order."""
        left = tmp_path / "out.unfinished"
        removals = {name: getattr(os, name) for name in ("unlink", "rmdir")}
        monkeypatch.setattr(
            Path, "iterdir", lambda self, found=Path.iterdir: iter(names_are_deleted(list(found(self))))
        )
        for allowed in range(6):
            left.mkdir()
            for name in (".lock", MARKER):
                (left / name).touch()
            mark(left, ".maker.json")
            (left / "GT.lmdb").mkdir()
            (left / "GT.lmdb" / "data.mdb").touch()
            count = [allowed]

            def dies(name: str, *arguments: Any, _count: list[int] = count, **options: Any) -> None:
                _count[0] -= 1
                if _count[0] < 0:
                    os._exit(9)
                removals[name](*arguments, **options)

            child = os.fork()
            if child == 0:
                try:
                    os.unlink, os.rmdir = (partial(dies, name) for name in removals)
                    with staging(tmp_path / "out", DATA_SET, overwrite=True) as stage:
                        (stage.path / MARKER).touch()
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            with staging(tmp_path / "out", DATA_SET, overwrite=True) as stage:
                (stage.path / MARKER).touch()
            assert names(tmp_path) == ["out"]

    def test_exception_a_living_maker(self, tmp_path: Path) -> None:
        with staging(tmp_path / "out", DATA_SET, job="a") as stage:
            fill(stage.path, "1")
            for job in ("a", "b"):
                with (
                    pytest.raises(UserError, match=rf"is being made by process {os.getpid()} on .*; wait"),
                    staging(tmp_path / "out", DATA_SET, job=job),
                ):
                    pass
        assert names(tmp_path) == ["out"]

    def test_exception_sigterm(self, tmp_path: Path) -> None:
        ended = r"out: ended by SIGTERM; run the same command again$"
        with pytest.raises(Preempted, match=ended) as caught, staging(tmp_path / "out", DATA_SET):
            raise TerminatedError
        assert caught.value.exit_code == 75

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (lmdb.Error("mdb_txn_commit: Input/output error"), "no space left on the disk"),
            (lmdb.Error("mdb_put: File too large"), "larger than the file system or `ulimit -f` allows"),
            (lmdb.ReadonlyError("x: Permission denied"), "permission denied"),
            (OSError(errno.EROFS, "x"), "the file system is read-only"),
        ],
    )
    def test_exception_in_words(self, tmp_path: Path, error: Exception, message: str) -> None:
        with pytest.raises(UserError, match=message), staging(tmp_path / "out", DATA_SET):
            raise error


class TestStagedFolder:
    def test_smoke(self, tmp_path: Path) -> None:
        out = tmp_path / "new" / "out"
        with staged_folder(out, DATA_SET) as folder:
            assert folder.parent == out.parent
            assert folder.name == "out.unfinished"
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
        with staged_folder(out, DATA_SET) as folder:
            fill(folder, "1")
        for path in (out / MARKER, out / "sub" / "file", out / "sub", out, tmp_path):
            assert (path.stat().st_dev, path.stat().st_ino) in synced

    @pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(1)])
    def test_feature_failure_leaves_nothing(self, tmp_path: Path, error: BaseException) -> None:
        def build() -> None:
            with staged_folder(tmp_path / "out", DATA_SET) as folder:
                fill(folder, "1")
                raise error

        with pytest.raises(type(error)):
            build()
        assert names(tmp_path) == []

    def test_feature_overwrite(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for text in ("1", "2"):
            with staged_folder(out, DATA_SET, overwrite=True) as folder:
                fill(folder, text)
        assert (out / "sub" / "file").read_text() == "2"
        assert names(tmp_path) == ["out"]

    def test_feature_failed_overwrite_keeps_the_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "out"
        with staged_folder(out, DATA_SET) as folder:
            fill(folder, "old")
        with pytest.raises(RuntimeError), staged_folder(out, DATA_SET, overwrite=True) as folder:
            raise RuntimeError
        assert (out / "sub" / "file").read_text() == "old"

        rename = Path.rename

        def failing(self: Path, target: Path) -> Path:
            if ".unfinished" in self.name:
                raise OSError(errno.EIO, "broken disk")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(UserError), staged_folder(out, DATA_SET, overwrite=True) as folder:
            fill(folder, "new")
        assert (out / "sub" / "file").read_text() == "old"
        assert names(tmp_path) == ["out"]

    def test_feature_killed_between_two_renames(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The old one stands at its name again before anything else is tried, and goes when the new one has it."""
        out, aside = tmp_path / "out", tmp_path / "out.moved-aside"
        aside.mkdir()
        fill(aside, "old")
        mark(aside)
        with pytest.raises(RuntimeError), staged_folder(out, DATA_SET, overwrite=True):
            raise RuntimeError
        assert (out / "sub" / "file").read_text() == "old"
        assert "out: put back from out.moved-aside" in capsys.readouterr().err
        assert names(out) == [MARKER, "sub"]
        assert names(tmp_path) == ["out"]
        mark(out)
        out.rename(aside)
        with staged_folder(out, DATA_SET, overwrite=True) as folder:
            fill(folder, "new")
        assert (out / "sub" / "file").read_text() == "new"
        assert names(tmp_path) == ["out"]

    def test_exception_taken(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "thesis.tex").touch()
        with pytest.raises(UserError, match="exists already"), staged_folder(out, DATA_SET):
            pass
        with (
            pytest.raises(UserError, match="was not written by 'prepare'"),
            staged_folder(out, DATA_SET, overwrite=True),
        ):
            pass
        assert names(out) == ["thesis.tex"]

    def test_exception_taken_meanwhile(self, tmp_path: Path) -> None:
        out = tmp_path / "out"

        def build() -> None:
            with staged_folder(out, DATA_SET) as folder:
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
            staged_folder(tmp_path / "out", DATA_SET),
        ):
            raise error
        assert "\n" not in str(caught.value)
        assert names(tmp_path) == []

    def test_exception_parent_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file"), staged_folder(tmp_path / "file" / "out", DATA_SET):
            pass

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_exception_no_space_from_the_system(self, tmp_path: Path) -> None:
        def build() -> None:
            with staged_folder(tmp_path / "out", DATA_SET), Path("/dev/full").open("w") as full:
                full.write("x")

        with pytest.raises(UserError, match="no space left on the disk"):
            build()

    def test_exception_other_errors_are_ours(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="Bad file descriptor"), staged_folder(tmp_path / "out", DATA_SET):
            os.close(-1)
        assert names(tmp_path) == []
