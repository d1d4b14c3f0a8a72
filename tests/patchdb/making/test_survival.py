"""A database is made in a forked process that is killed, interrupted or runs into a full disk."""

import errno
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from gramgan_plugin.errors import Preempted, UserError
from gramgan_plugin.patchdb.making import building
from gramgan_plugin.patchdb.making.building import build, merge, update
from gramgan_plugin.patchdb.making.placing import DATABASE, placed
from gramgan_plugin.patchdb.making.source_photos import Reading
from gramgan_plugin.patchdb.store import open_store
from gramgan_plugin.utils.staging import put_back
from tests.survival import end, in_child, killed_at, start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")
QUIET = {"progress": False, "reading": Reading(workers=2)}


@pytest.fixture(scope="module")
def few(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the photos."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("cat.png", "cup.png"):
        shutil.copy(photos / name, folder)
    return folder


@pytest.fixture(scope="module")
def old(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("old") / "a.patchdb"
    build([few], out, max_patches=500, **QUIET)
    return out


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The fingerprint of what is made of all photos."""
    out = tmp_path_factory.mktemp("whole") / "a.patchdb"
    return str(build([photos], out, max_patches=500, **QUIET).manifest["fingerprint"])


class TestKill:
    def test_feature_build(self, photos: Path, tmp_path: Path, whole: str) -> None:
        """At every step: nothing, or all of it; the next one deletes what is left and does it right."""
        killed = 0
        for number in range(1, 40):
            out = tmp_path / str(number) / "a.patchdb"

            def work(out: Path = out) -> None:
                build([photos], out, max_patches=500, **QUIET)

            if in_child(killed_at(number, work)) == 0:
                break
            killed += 1
            if out.exists():
                assert open_store(out, verify=True).fingerprint == whole
            else:
                assert len(list(out.parent.iterdir())) == 1
                work()
                assert open_store(out, verify=True).fingerprint == whole
                assert [path.name for path in out.parent.iterdir()] == ["a.patchdb"]
        assert 8 < killed < 39

    def test_feature_update(self, photos: Path, old: Path, tmp_path: Path, whole: str) -> None:
        """At every step: the old one or the new one, if need be put back; the next update makes it the new one."""
        before, states = open_store(old).fingerprint, set()
        for number in range(1, 40):
            out = tmp_path / str(number) / "a.patchdb"
            shutil.copytree(old, out)

            def work(out: Path = out) -> None:
                update(out, [photos], **QUIET)

            if in_child(killed_at(number, work)) == 0:
                break
            state = "there" if out.exists() else "aside"
            put_back(out, DATABASE)
            now = open_store(out, verify=True).fingerprint
            assert now in (before, whole)
            states.add((state, now))
            work()
            assert open_store(out, verify=True).fingerprint == whole
            assert [path.name for path in out.parent.iterdir()] == ["a.patchdb"]
        assert states == {("there", before), ("aside", before), ("there", whole)}

    def test_feature_update_of_one_that_was_moved_aside(
        self, photos: Path, old: Path, tmp_path: Path, whole: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        aside = Path(shutil.copytree(old, tmp_path / "a.patchdb.moved-aside"))
        (aside / ".moved.json").write_text('{"host": "here", "pid": 1}')
        update(tmp_path / "a.patchdb", [photos], **QUIET)
        assert "a.patchdb: put back from a.patchdb.moved-aside" in capsys.readouterr().err
        assert open_store(tmp_path / "a.patchdb", verify=True).fingerprint == whole
        assert [path.name for path in tmp_path.iterdir()] == ["a.patchdb"]

    def test_feature_at_random_moments(self, photos: Path, tmp_path: Path, whole: str) -> None:
        out, chance = tmp_path / "a.patchdb", random.Random(3)
        for _ in range(12):
            child = start(lambda: build([photos], out, max_patches=500, **QUIET))
            time.sleep(chance.uniform(0, 0.3))
            os.kill(child, signal.SIGKILL)
            end(child)
            if out.exists():
                assert open_store(out, verify=True).fingerprint == whole
                shutil.rmtree(out)
        build([photos], out, max_patches=500, **QUIET)
        assert open_store(out, verify=True).fingerprint == whole
        assert [path.name for path in tmp_path.iterdir()] == ["a.patchdb"]


class TestInterrupted:
    @pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
    def test_feature_cleans_up(
        self, photos: Path, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
    ) -> None:
        out = Path(shutil.copytree(old, tmp_path / "a.patchdb"))
        before = open_store(out).fingerprint
        real, calls = building.Collection.add, []

        def add(*args: object) -> None:
            calls.append(args)
            if len(calls) == 3:
                raise kind
            real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(building.Collection, "add", add)
        for work in (
            lambda: update(out, [photos], **QUIET),
            lambda: build([photos], out, overwrite=True, **QUIET),
            lambda: build([photos], tmp_path / "new.patchdb", **QUIET),
        ):
            calls.clear()
            with pytest.raises(kind):
                work()
            assert [path.name for path in tmp_path.iterdir()] == ["a.patchdb"]
            assert open_store(out, verify=True).fingerprint == before

    def test_feature_sigterm(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(building.Collection, "add", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted, match=r"a.patchdb: ended by SIGTERM"):
            build([photos], tmp_path / "a.patchdb", **QUIET)
        assert not list(tmp_path.iterdir())

    def test_feature_full_disk(self, photos: Path, old: Path, tmp_path: Path) -> None:
        """No file may grow beyond 16 kB: the scratch file, and with fewer patches the arrays."""

        def work(out: Path, most: int) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, resource.RLIM_INFINITY))
            with pytest.raises(UserError, match=r"a.patchdb.*ulimit -f"):
                build([photos], out, max_patches=most, **QUIET)

        for most in (20_000, 400):
            assert in_child(lambda most=most: work(tmp_path / "a.patchdb", most)) == 0  # type: ignore[misc]
            assert not list(tmp_path.iterdir())

    def test_feature_merge(self, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(building.Collection, "add_store", full)
        with pytest.raises(UserError, match=r"no space left on the disk"):
            merge([old, old], tmp_path / "a.patchdb")
        assert not list(tmp_path.iterdir())


class TestPlaced:
    def test_feature_one_at_a_time(self, tmp_path: Path) -> None:
        """While one process makes a database, no other does; afterwards its name is taken."""
        out = tmp_path / "a.patchdb"

        def other() -> None:
            with (
                pytest.raises(UserError, match=r"is being made by process \d+ on .* \(a.patchdb.unfinished\)"),
                placed(out, overwrite=True),
            ):
                pass

        with placed(out, overwrite=False) as folder:
            (folder / "manifest.json").write_text("{}")
            assert in_child(other) == 0
            assert not out.exists()
        assert [path.name for path in out.iterdir()] == ["manifest.json"]
        with pytest.raises(UserError, match="exists already"), placed(out, overwrite=False):
            pass

    def test_feature_old_one_comes_back(self, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the new one cannot be given the name, the old one gets it back."""
        out = Path(shutil.copytree(old, tmp_path / "a.patchdb"))
        real = Path.rename

        def rename(path: Path, target: Path) -> Path:
            if ".unfinished" in path.name:
                raise OSError(errno.EACCES, "Permission denied", str(path))
            return real(path, target)

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(UserError, match="permission denied"), placed(out, overwrite=True) as folder:
            (folder / "manifest.json").touch()
        assert [path.name for path in tmp_path.iterdir()] == ["a.patchdb"]
        assert open_store(out, verify=True).fingerprint == open_store(old).fingerprint

    def test_feature_taken_meanwhile(self, tmp_path: Path) -> None:
        out = tmp_path / "a.patchdb"
        with pytest.raises(UserError, match="exists already"), placed(out, overwrite=False):
            (out / "other").mkdir(parents=True)
        assert [path.name for path in tmp_path.iterdir()] == ["a.patchdb"]
        assert (out / "other").exists()
