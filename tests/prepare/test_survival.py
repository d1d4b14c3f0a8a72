"""A packing is killed, stopped and run into full disks in a forked process; then it is run again."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import lmdb
import pytest
import skimage.data
from basicsr.data.data_util import paired_paths_from_lmdb

from gramgan_plugin.data.lmdb_images import META_INFO, LmdbImages
from gramgan_plugin.errors import Preempted, UserError
from gramgan_plugin.prepare import data_set, lmdb_writer, pack
from gramgan_plugin.prepare.folders import folder_photos
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter
from gramgan_plugin.prepare.pack import prepare_photos
from gramgan_plugin.prepare.plan import Settings
from gramgan_plugin.prepare.presets import Preset
from tests.survival import end, in_child, killed_at, start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")

SETTINGS = Settings(4, Preset(64, 64, 0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine real photos, one of them damaged."""
    folder = tmp_path_factory.mktemp("photos")
    picture = skimage.data.astronaut()
    for number in range(9):
        cut = picture[number * 20 : number * 20 + 203, number * 25 : number * 25 + 240]
        cv2.imwrite(str(folder / f"{number}.png"), cut)
    whole = bytearray((folder / "4.png").read_bytes())
    whole[len(whole) // 2] ^= 1  # its header is all right
    (folder / "4.png").write_bytes(whole)
    return folder


@pytest.fixture(autouse=True)
def small_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_set, "BYTES_AT_ONCE", 150_000)  # about two photos


def pack_them(photos: Path, out: Path, **options: Any) -> pack.Report:
    given = {"on_error": "skip", "hold_out": ["7"], "progress": False, "workers": 2, "settings": SETTINGS, **options}
    return prepare_photos(folder_photos(photos), out, **given)


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_set, "BYTES_AT_ONCE", 150_000)
        pack_them(photos, out)
    content = everything_in(out)
    assert len(content["GT.lmdb"]) == 7 * 16  # of 240x200: 4 columns, 4 rows
    return content


def everything_in(out: Path) -> dict[str, Any]:
    """All files by name, hidden ones included; of an LMDB what it holds."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if path.name == "data.mdb":
            with lmdb.open(str(path.parent), readonly=True, lock=False) as environment, environment.begin() as reading:
                found[path.parent.name] = dict(reading.cursor())
        else:
            found[path.relative_to(out).as_posix()] = path.read_bytes()
    return found


class TestKill:
    def test_feature_at_every_sync(
        self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Killed just before the n-th transaction, sync or rename, for every second n."""
        resumed = killed = 0
        for number in range(1, 100, 2):
            out = tmp_path / str(number) / "out"
            if in_child(killed_at(number, lambda out=out: pack_them(photos, out), [(LmdbWriter, "_write")])) == 0:  # type: ignore[misc]
                break
            killed += 1
            if out.exists():  # it was killed after the rename
                assert everything_in(out).items() >= undisturbed.items()
                continue
            assert [path.name for path in out.parent.iterdir()] == ["out.unfinished"]
            capsys.readouterr()
            pack_them(photos, out)
            resumed += "resuming" in capsys.readouterr().err
            assert everything_in(out) == undisturbed
            assert [path.name for path in out.parent.iterdir()] == ["out"]
        assert killed > 10
        assert resumed > 5

    def test_feature_at_random_moments(self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
        """Killed again and again, until it is done."""
        out = tmp_path / "out"
        whole = len(undisturbed["names.jsonl"].splitlines())
        chance = random.Random(5)
        for _ in range(25):
            child = start(lambda: pack_them(photos, out))
            time.sleep(chance.uniform(0, 0.08))
            os.kill(child, signal.SIGKILL)
            if end(child) == 0 or out.exists():
                break
            for path in tmp_path.glob("out.unfinished/*.lmdb"):
                if (path / META_INFO).exists():  # written last: then all is there but the folder's name
                    assert len(LmdbImages(path).keys) == whole
                else:
                    with pytest.raises(UserError, match=r"has no meta_info.txt|no such LMDB"):
                        LmdbImages(path)
        if not out.exists():
            pack_them(photos, out)
        assert everything_in(out).items() >= undisturbed.items()
        shutil.rmtree(out)
        assert list(tmp_path.iterdir()) == []

    def test_feature_goes_on(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.killed_after_two_commits(photos, tmp_path / "out")
        cut = pack.Cutter.results
        numbers = []
        monkeypatch.setattr(
            pack.Cutter, "results", lambda self, entries: (numbers.append(len(entries)), cut(self, entries))[1]
        )
        report = pack_them(photos, tmp_path / "out")
        assert "resuming out.unfinished" in capsys.readouterr().err
        assert numbers[0] < 8
        assert (report.photos, report.held_out, [name for name, _ in report.skipped]) == (7, 1, ["4.png"])

    def test_feature_killed_before_the_folder_has_its_name(
        self,
        photos: Path,
        tmp_path: Path,
        undisturbed: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """All is there: nothing is cut again, and the report is the same."""

        def work() -> None:
            Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,return-value]
            pack_them(photos, tmp_path / "out")

        assert in_child(work) == -signal.SIGKILL
        monkeypatch.setattr(pack.Cutter, "results", lambda *_: pytest.fail("cut again"))
        report = pack_them(photos, tmp_path / "out")
        assert "resuming" not in capsys.readouterr().err
        assert (report.photos, report.sub_images, report.held_out) == (7, 112, 1)
        assert [name for name, _ in report.skipped] == ["4.png"]
        assert everything_in(tmp_path / "out") == undisturbed

    @pytest.mark.parametrize("name", ["GT.lmdb", "LQ_x4.lmdb"])
    def test_feature_killed_before_the_manifest(
        self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any], name: str
    ) -> None:
        def work() -> None:
            write = lmdb_writer.write_manifest

            def deadly(path: Path, *args: Any, **facts: Any) -> None:
                if path.name == name:
                    os.kill(os.getpid(), signal.SIGKILL)
                write(path, *args, **facts)

            lmdb_writer.write_manifest = deadly
            pack_them(photos, tmp_path / "out")

        assert in_child(work) == -signal.SIGKILL
        pack_them(photos, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    @pytest.mark.parametrize("harm", ["GT.lmdb", "LQ_x4.lmdb", "GT.lmdb/data.mdb", "LQ_x4.lmdb/data.mdb"])
    def test_feature_one_of_two_closed_databases_is_lost(
        self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any], harm: str
    ) -> None:
        def work() -> None:
            Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,return-value]
            pack_them(photos, tmp_path / "out")

        assert in_child(work) == -signal.SIGKILL
        lost = tmp_path / "out.unfinished" / harm
        os.truncate(lost, 0) if lost.is_file() else shutil.rmtree(lost)
        pack_them(photos, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    def test_feature_among_the_photos(self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
        """What a killed call has written of held-out photos is not taken for photos by the next."""
        inside = shutil.copytree(photos, tmp_path / "photos") / "set"
        self.killed_after_two_commits(inside.parent, inside, hold_out=["0"])
        assert list((inside.parent / "set.unfinished" / "test" / "GT").iterdir())
        found = folder_photos(inside.parent, recursive=True)
        assert len(found) == 11
        report = prepare_photos(found, inside, SETTINGS, on_error="skip", hold_out=["0"], progress=False, workers=2)
        assert (report.photos, report.held_out) == (7, 1)

    @pytest.mark.parametrize("change", ["option", "photo"])
    def test_feature_another_job_begins_anew(
        self, photos: Path, tmp_path: Path, change: str, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        if change == "option":
            self.killed_after_two_commits(photos, tmp_path / "out", settings=Settings(4, Preset(64, 32, 0)))
        else:
            copy = shutil.copytree(photos, tmp_path / "copy")
            os.utime(copy / "8.png", (1, 1))
            self.killed_after_two_commits(copy, tmp_path / "out")
            shutil.rmtree(copy)
        pack_them(photos, tmp_path / "out")
        assert "left behind by another job" in capsys.readouterr().err
        assert everything_in(tmp_path / "out") == undisturbed
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_feature_lost_pages(self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
        """The disk lost what it had promised to hold: the work begins anew."""
        self.killed_after_two_commits(photos, tmp_path / "out")
        next(tmp_path.glob("out.unfinished/LQ_x4.lmdb/data.mdb")).unlink()
        pack_them(photos, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    @pytest.mark.parametrize("name", ["GT.lmdb", "LQ_x4.lmdb"])
    @pytest.mark.parametrize("harm", ["cut short", "overwritten"])
    def test_feature_damaged(
        self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any], name: str, harm: str
    ) -> None:
        self.killed_after_two_commits(photos, tmp_path / "out")
        data = tmp_path / "out.unfinished" / name / "data.mdb"
        if harm == "cut short":
            os.truncate(data, data.stat().st_size // 2)
        else:
            data.write_bytes(b"?" * data.stat().st_size)
        pack_them(photos, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    def test_feature_between_the_two_databases(self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
        """LQ has what GT has not: it is written again."""
        copy = shutil.copytree(photos, tmp_path / "copy")

        def work() -> None:
            put = LmdbWriter.put

            def deadly(self: LmdbWriter, *args: Any) -> None:
                if self.path.name == "GT.lmdb" and self.puts == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                put(self, *args)

            LmdbWriter.put = deadly  # type: ignore[method-assign]
            pack_them(copy, tmp_path / "out")

        assert in_child(work) == -signal.SIGKILL
        pack_them(copy, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    def test_exception_a_database_being_written(self, photos: Path, tmp_path: Path) -> None:
        self.killed_after_two_commits(photos, tmp_path / "out")
        gt, lq = (next(tmp_path.glob(f"out.unfinished/{name}.lmdb")) for name in ("GT", "LQ_x4"))
        with pytest.raises(UserError, match=r"has no meta_info.txt"):
            LmdbImages(gt)
        with pytest.raises(FileNotFoundError, match="meta_info"):
            paired_paths_from_lmdb([str(lq), str(gt)], ["lq", "gt"])

    @staticmethod
    def killed_after_two_commits(photos: Path, out: Path, **options: Any) -> None:
        def work() -> None:
            add = data_set.DataSet.commit

            def commit(self: data_set.DataSet) -> None:
                add(self)
                if self.counts.done >= 4:
                    os.kill(os.getpid(), signal.SIGKILL)

            data_set.DataSet.commit = commit  # type: ignore[method-assign]
            pack_them(photos, out, **options)

        assert in_child(work) == -signal.SIGKILL
        assert not out.exists()


class TestStop:
    @pytest.mark.parametrize(("sent", "raised"), [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)])
    def test_feature(
        self,
        photos: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        undisturbed: dict[str, Any],
        capsys: pytest.CaptureFixture[str],
        sent: int,
        raised: type[BaseException],
    ) -> None:
        commit = data_set.DataSet.commit

        def and_signal(self: data_set.DataSet) -> None:
            commit(self)
            if self.counts.done >= 4:
                signal.raise_signal(sent)

        monkeypatch.setattr(data_set.DataSet, "commit", and_signal)
        with pytest.raises(raised) as caught:
            pack_them(photos, tmp_path / "out")
        reported = str(caught.value) if raised is Preempted else capsys.readouterr().err
        kept = next(tmp_path.iterdir()).name
        assert "run the same command again" in reported
        assert f" of 9 photos are packed, kept in {kept}" in reported
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        monkeypatch.undo()
        monkeypatch.setattr(data_set, "BYTES_AT_ONCE", 150_000)
        pack_them(photos, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    def test_feature_nothing_to_keep(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(data_set.DataSet, "add", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Preempted, match=r"run the same command again$"):
            pack_them(photos, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_exit_code(self, photos: Path, tmp_path: Path) -> None:
        """From the command line: 75, as for training that saved its state."""
        code = (
            "import signal, sys; from gramgan_plugin.cli.main import main\n"
            "from gramgan_plugin.prepare.data_set import DataSet\n"
            "DataSet.add = lambda *_: signal.raise_signal(signal.SIGTERM)\n"
            f"sys.exit(main(['prepare', 'folder', {str(photos)!r}, '--out', {str(tmp_path / 'out')!r}, "
            "'--crop-size', '64', '--on-error', 'skip']))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 75
        assert done.stderr.strip().splitlines()[-1].endswith("ended by SIGTERM; run the same command again")


class TestSecondMaker:
    def test_exception_a_living_one(self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, writing = os.pipe()

        def work() -> None:
            def wait(self: data_set.DataSet, *_: object) -> None:
                os.write(writing, b"1")
                time.sleep(60)

            data_set.DataSet.add = wait  # type: ignore[method-assign]
            pack_them(photos, tmp_path / "out")

        child = start(work)
        try:
            os.read(reading, 1)
            with pytest.raises(UserError, match=rf"out: is being made by process {child} on '"):
                pack_them(photos, tmp_path / "out")
            assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
        finally:
            os.kill(child, signal.SIGKILL)
            end(child)
        pack_them(photos, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


class TestFullDisk:
    def test_exception_file_size_limit(self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
        """`ulimit -f`: the map of GT is what grows beyond it."""
        reported = tmp_path / "message"

        def work() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
            try:
                pack_them(photos, tmp_path / "out")
            except UserError as error:
                reported.write_text(str(error))

        assert in_child(work) == 0
        message = reported.read_text()
        assert "no space left on the disk or within `ulimit -f`" in message
        assert "; then run the same command again: " in message
        assert "\n" not in message
        reported.unlink()
        pack_them(photos, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    def test_exception_no_space(
        self, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
    ) -> None:
        """The disk fills up while the names are synced."""
        real, calls = os.fsync, []

        def fsync(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) == 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"no space left on the disk;.* run the same command again"):
            pack_them(photos, tmp_path / "out")
        monkeypatch.setattr(os, "fsync", real)
        pack_them(photos, tmp_path / "out")
        assert everything_in(tmp_path / "out") == undisturbed

    def test_exception_a_small_disk(self, photos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("must not mount a small disk")
        try:
            with pytest.raises(UserError, match="no space left on the disk") as caught:
                pack_them(photos, disk / "out")
            assert "\n" not in str(caught.value)
            more = ["mount", "-o", "remount,size=8m", str(disk)]
            subprocess.run(more, capture_output=True, check=True)
            pack_them(photos, disk / "out")
            assert everything_in(disk / "out") == undisturbed
        finally:
            subprocess.run(["umount", str(disk)], check=True)
