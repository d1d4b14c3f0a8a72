"""CPU instructions, and the cores and memory that this process may use.

Imports nothing heavy: torch reads what is set here when it is imported, and a broken torch must not matter here.
"""

import ctypes
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BF16 = {"avx512_bf16": "AVX-512", "amx_bf16": "AMX", "bf16": "Arm's bf16"}
# How many times a libgomp thread checks a barrier before it sleeps. With the default of 300,000 a step is several times
# slower as soon as another process uses the cores; see docs/performance.md.
SPIN_COUNT = "10000"
# glibc's mallopt(3): nothing mapped by itself, nothing trimmed; and the values that glibc itself arrives at.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
_RETURNED = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26}
_CGROUPS = (  # memory limit and usage of a container, cgroup versions 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """Return the CPU's bf16 instructions, or None where the system does not report them."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    # The line is called "flags" on x86 and "Features" on Arm.
    flags = next((line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "feat"))), None)
    if flags is None:
        return None
    return [name for flag, name in BF16.items() if flag in flags]


@contextmanager
def memory_kept() -> Iterator[None]:
    """Let glibc keep freed memory during the block, and return it to the system at its end.

    Otherwise each tensor above 32 MB is mapped anew, and the system zeroes its pages when they are written: networks
    of the ESRGAN family take 1.5 times as long on 512x512 pixels. Nothing happens with another C library.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    for parameter, value in _KEPT.items():
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _RETURNED.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


@dataclass(frozen=True)
class Cores:
    """The cores that this process may use.

    Attributes:
        count: number of threads that can compute at once, at least 1.
        machine: the machine's cores.
        affinity: the cores that the affinity mask allows (``taskset``, Slurm).
        quota: the cgroup's quota in cores (``docker --cpus``, Kubernetes' limits), or None.
    """

    count: int
    machine: int
    affinity: int
    quota: float | None

    def why(self) -> str:
        """Return the reason for ``count``, in words."""
        if self.quota is not None and self.quota < self.affinity:
            return f"the cgroup's quota is {self.quota:g} of {self.machine} cores"
        if self.affinity < self.machine:
            return f"the affinity mask allows {self.affinity} of {self.machine} cores"
        return f"all {self.machine} cores"


def usable_cores(root: Path = Path("/")) -> Cores:
    """Count the cores that the affinity mask and the cgroup allow this process.

    Args:
        root: the folder with ``proc`` and ``sys``.
    """
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    quota = cgroup_quota(root)
    count = affinity if quota is None else min(affinity, int(quota))
    return Cores(max(1, count), machine, affinity, quota)


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Return the smallest CPU quota of this process's cgroup and its parents, in cores, or None without a quota.

    Args:
        root: the folder with ``proc`` and ``sys``.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    quotas = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has no controllers in its line. In a container the path may be the host's, of which only the end is
        # there, or nothing: its root is read in any case.
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        here = top / path.lstrip("/")
        for folder in (here, *here.parents):
            if not folder.is_relative_to(top):
                break
            quotas.append(_quota_v1(folder) if controllers else _quota_v2(folder))
    found = [quota for quota in quotas if quota is not None]
    return min(found, default=None)


def available_memory() -> int | None:
    """Return how many bytes this process may still use, given the system and the container's limit; None if unknown."""
    import psutil

    found = []
    with suppress(OSError, RuntimeError):
        found.append(psutil.virtual_memory().available)
    for limit, used in _CGROUPS:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            found.append(max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
    return min(found, default=None)


def set_openmp(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set OpenMP's threads and spin count where the user has not, before torch is imported.

    The threads are limited to the cgroup's quota: otherwise a container of 2 cores on a machine of 64 would use 64
    threads. libgomp itself respects the affinity mask.
    """
    if "torch" in sys.modules:  # it has read the variables already
        return
    cores = usable_cores()
    if cores.count < cores.affinity:
        environ.setdefault("OMP_NUM_THREADS", str(cores.count))
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _cores(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _cores(quota: str, period: str) -> float | None:
    """Return a quota in cores; None for ``max`` (version 2) and -1 (version 1), which mean no limit."""
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
