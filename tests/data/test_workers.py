import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from gramgan_plugin.data.workers import WorkerStop

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")

# Two loading processes; from sample 4 on they never answer.
STUCK = """
import os, sys, time, weakref
# So its calls at exit come after those of multiprocessing, which has not been imported yet.
early = weakref.WeakSet()
weakref.finalize(early, len, ())
import gramgan_plugin
from torch.utils.data import DataLoader, Dataset
from gramgan_plugin.data.workers import WorkerStop

class Stuck(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        while index >= 4:
            time.sleep(60)
        return os.getpid()

worker_stop = WorkerStop()
loader = DataLoader(
    Stuck(), num_workers=2, worker_init_fn=worker_stop.worker_init(), multiprocessing_context=sys.argv[1]
)
if __name__ == "__main__":
    iterator = iter(loader)
    print(*{int(next(iterator)) for _ in range(4)}, flush=True)
    input()
    {end}
"""


class Pids(Dataset[int]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        time.sleep(0.01)
        return os.getpid()


def gone(pids: list[int], seconds: float) -> bool:
    """Whether no process of these runs any more, after at most so many seconds."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except FileNotFoundError:
            return False

    end = time.monotonic() + seconds
    while any(map(runs, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class TestWorkerInit:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_feature_signals_are_left_to_the_parent(self, method: str) -> None:
        worker_stop = WorkerStop()
        loader = DataLoader(
            Pids(), 1, num_workers=2, worker_init_fn=worker_stop.worker_init(), multiprocessing_context=method
        )
        batches = iter(loader)
        pids = {int(next(batches)) for _ in range(6)}
        assert len(pids) == 2
        for name in SIGNALS:
            for pid in pids:
                os.kill(pid, getattr(signal, name))
            # 2 batches a worker are loaded ahead.
            assert {int(next(batches)) for _ in range(10)} == pids, name
        del batches
        assert gone(list(pids), 5)

    @pytest.mark.parametrize(
        ("method", "end"),
        [
            ("fork", "pass"),
            ("fork", "sys.exit(3)"),
            ("fork", "raise RuntimeError"),
            ("fork", "kill"),
            ("spawn", "raise RuntimeError"),
            ("spawn", "kill"),
        ],
    )
    def test_feature_ends_with_the_parent(self, tmp_path: Path, method: str, end: str) -> None:
        """Even in the middle of a sample that never comes, and however the parent ends."""
        script = tmp_path / "stuck.py"
        script.write_text(STUCK.replace("{end}", "pass" if end == "kill" else end))
        process = subprocess.Popen(
            [sys.executable, str(script), method],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        try:
            assert len(pids) == 2
            if end == "kill":
                process.kill()
            else:
                process.stdin.write("\n")
                process.stdin.close()
            process.wait(timeout=60)
            assert gone(pids, 10)
        finally:
            process.kill()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
