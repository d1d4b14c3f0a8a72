import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gramgan_plugin.utils import system


class TestQuota:
    def _machine(self, root: Path, cgroup: str, files: dict[str, str]) -> Path:
        for name, text in {"proc/self/cgroup": cgroup, **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    @pytest.mark.parametrize(
        ("cgroup", "files", "quota"),
        [
            ("0::/\n", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
            ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
            ("0::/\n", {}, None),
            # The least of those above counts.
            (
                "0::/user.slice/job.scope\n",
                {
                    "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
                    "sys/fs/cgroup/user.slice/job.scope/cpu.max": "800000 100000\n",
                },
                1.5,
            ),
            # In a container the path is the host's.
            ("0::/docker/0123\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
            # Version 1, and both side by side.
            (
                "4:cpu,cpuacct:/docker/0123\n1:name=systemd:/x\n0::/\n",
                {
                    "sys/fs/cgroup/cpu/docker/0123/cpu.cfs_quota_us": "300000\n",
                    "sys/fs/cgroup/cpu/docker/0123/cpu.cfs_period_us": "100000\n",
                    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                },
                3.0,
            ),
            ("0::/\n", {"sys/fs/cgroup/cpu.max": "garbage\n"}, None),
            ("0::/../..\n", {"sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
        ],
    )
    def test_cgroups(self, tmp_path, cgroup, files, quota):
        assert system.cgroup_quota(self._machine(tmp_path, cgroup, files)) == quota

    def test_no_proc(self, tmp_path):
        assert system.cgroup_quota(tmp_path) is None

    @pytest.mark.parametrize(("quota", "count"), [("200000", 2), ("250000", 2), ("50000", 1), ("6400000", 4)])
    def test_the_count_and_why(self, tmp_path, monkeypatch, quota, count):
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
        root = self._machine(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
        cores = system.usable_cores(root)
        assert cores.count == count
        expected = "affinity mask allows 4" if count == 4 else f"quota is {int(quota) / 1e5:g}"
        assert f"{expected} of 64 cores" in cores.why()

    def test_packing_and_search_go_by_it(self, monkeypatch):
        from gramgan_plugin.utils import threads

        monkeypatch.setattr(threads, "usable_cores", lambda: system.Cores(2, 64, 64, 2.5))
        assert threads.threads_for(None) == 2


class TestOpenmp:
    @pytest.fixture
    def before_torch(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "torch", raising=False)

    def test_in_a_container(self, before_torch, monkeypatch):
        monkeypatch.setattr(system, "usable_cores", lambda: system.Cores(2, 64, 64, 2.0))
        environ: dict[str, str] = {}
        system.set_openmp(environ)
        assert environ == {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": system.SPIN_COUNT}

    def test_what_the_user_set_stays(self, before_torch, monkeypatch):
        monkeypatch.setattr(system, "usable_cores", lambda: system.Cores(2, 64, 64, 2.0))
        for environ in (
            {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "7"},
            {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "8"},
        ):
            before = dict(environ)
            system.set_openmp(environ)
            assert environ == before

    def test_without_a_quota_threads_are_left_to_libgomp(self, before_torch, monkeypatch):
        monkeypatch.setattr(system, "usable_cores", lambda: system.Cores(4, 64, 4, None))
        environ: dict[str, str] = {}
        system.set_openmp(environ)
        assert "OMP_NUM_THREADS" not in environ

    def test_torch_reads_it(self, tmp_path):
        """In a process of its own, in which the command sets it before torch is imported."""
        script = (
            "import sys\n"
            "from gramgan_plugin.utils import system\n"
            "system.usable_cores = lambda: system.Cores(1, 64, 64, 1.0)\n"
            "from gramgan_plugin.cli import main\n"
            "assert main.main(['schema']) == 0\n"
            "import torch\n"
            "print(torch.get_num_threads(), file=sys.stderr)\n"
        )
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "MKL", "GOMP"))}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=True)
        assert done.stderr.strip().splitlines()[-1] == "1"


FAULTS = """
import resource
import torch
from gramgan_plugin.utils.system import memory_kept

def faults():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**25)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun

before = faults()
with memory_kept():
    faults()
    within = faults()
print(before, within, faults())
"""


class TestMemoryKept:
    @pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
    def test_large_tensors_are_not_mapped_anew(self):
        """The pages that the system gives, in a new process: a thread with an arena of its own gains nothing."""
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            pytest.skip("not glibc")
        done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
        before, within, after = map(int, done.stdout.split())
        assert within * 10 < before
        assert after > 10 * within, "and then memory is returned again"

    def test_with_another_c_library(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        with system.memory_kept():
            pass
