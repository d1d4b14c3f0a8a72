import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gramgan_plugin.diagnostics import storage
from gramgan_plugin.diagnostics.diagnosis import Level

MOUNTS = [("/", "ext4"), ("/home", "nfs4"), ("/home/a b", "fuse.sshfs"), ("/fast", "nfs"), ("/fast", "xfs")]


@pytest.fixture
def mounts(monkeypatch):
    monkeypatch.setattr(storage, "mounts", lambda: [(Path(folder), kind) for folder, kind in MOUNTS])


class TestFileSystem:
    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("/data/x", "ext4"),
            ("/home/me/x.lmdb", "nfs4"),
            ("/home/a b/x", "fuse.sshfs"),
            ("/homely", "ext4"),
            ("/fast/x", "xfs"),
        ],
    )
    def test_feature(self, mounts, path, kind):
        assert storage.file_system(Path(path)) == kind

    def test_where_the_system_does_not_tell(self, monkeypatch):
        def absent(all: bool) -> list[object]:
            raise FileNotFoundError

        monkeypatch.setattr(psutil, "disk_partitions", absent)
        assert storage.file_system(Path("/x")) is None

    @pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="no table of mounts here")
    def test_as_the_system_sees_it(self, tmp_path):
        command = ["stat", "--file-system", "--format=%T", "/proc"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "proc"
        assert storage.file_system(Path("/proc")) == "proc"


class TestWorkingDirectory:
    @pytest.mark.parametrize(("free", "level"), [(50e9, "ok"), (4.9e9, "warning"), (0.4e9, "problem")])
    def test_space(self, workdir, monkeypatch, free, level):
        monkeypatch.setattr(storage, "free_bytes", lambda folder: int(free))
        spaces = [finding for finding in storage.working_directory() if "GB free" in finding.fact]
        assert [finding.level for finding in spaces] == [level, level]
        assert all(bool(finding.cure) == (level != "ok") for finding in spaces)

    def test_it_cannot_be_written(self, workdir, monkeypatch):
        def refuse(dir):
            raise PermissionError(13, "Permission denied", str(dir))

        assert storage.write_error(workdir) is None
        assert list(workdir.iterdir()) == []
        monkeypatch.setattr(storage.tempfile, "TemporaryFile", refuse)
        (finding,) = [finding for finding in storage.working_directory() if finding.level == Level.PROBLEM]
        assert finding.fact == "cannot be written: Permission denied"

    def test_on_a_network(self, workdir, monkeypatch):
        monkeypatch.setattr(storage, "file_system", lambda path: "nfs4")
        first = next(iter(storage.working_directory()))
        assert "on nfs4, a network file system" in first.fact


class TestDataroots:
    def test_an_lmdb_on_a_network(self, tmp_path, monkeypatch):
        for name in ("a.lmdb", "b", "c"):
            (tmp_path / name).mkdir()
        lmdb, folder, other = (str(tmp_path / name) for name in ("a.lmdb", "b", "c"))
        options = {
            "datasets": {
                "train": {"dataroot_gt": [lmdb, folder], "dataroot_lq": str(tmp_path / "none")},
                "val": {"dataroot_gt": other, "io_backend": {"type": "lmdb"}},
                "odd": None,
            }
        }
        for kind, levels in (("lustre", ["warning", "ok", "warning"]), ("ext4", ["ok"] * 3), (None, ["ok"] * 3)):
            monkeypatch.setattr(storage, "file_system", lambda path, kind=kind: kind)
            found = list(storage.dataroots(options))
            assert [finding.level for finding in found] == levels
            assert [finding.topic for finding in found] == [
                "datasets.train.dataroot_gt",
                "datasets.train.dataroot_gt",
                "datasets.val.dataroot_gt",
            ]
        monkeypatch.setattr(storage, "file_system", lambda path: "fuse.sshfs")
        assert "memory" in next(iter(storage.dataroots(options))).reason


class TestRuns:
    def test_live_and_dead(self, workdir):
        code = (
            "import pathlib, sys\n"
            "from gramgan_plugin.training.run_folder import open_run_folder\n"
            "with open_run_folder(pathlib.Path('experiments/alive'), keep=True):\n"
            "    print('held', flush=True); sys.stdin.read()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline().strip() == "held"
            dead = workdir / "experiments/dead"
            dead.mkdir()
            (dead / ".lock").touch()
            (dead / ".lock.json").write_text("{}")  # killed: the file stays, the lock does not
            (finding,) = storage.runs()
            assert finding.fact.startswith(f"experiments/alive, held by process {process.pid} on ")
            (workdir / "experiments/alive/.lock.json").write_text("[")
            (finding,) = storage.runs()
            assert finding.fact == "experiments/alive, held by another process"
        finally:
            process.communicate("")
        assert list(storage.runs()) == []
