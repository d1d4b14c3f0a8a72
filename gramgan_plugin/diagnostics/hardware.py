"""Check the devices that a run computes on."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gramgan_plugin.diagnostics.diagnosis import Finding, named, ok, problem, warning
from gramgan_plugin.utils.system import bf16_instructions, usable_cores

# The settings of torch's threads; `basicsr` sets them unless the user does.
OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
MIB, GIB = 2**20, 2**30
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_MEMORY = 256 * MIB


class Gpu(NamedTuple):
    """A CUDA device."""

    name: str
    memory: int  # bytes
    bf16: bool


def devices() -> Iterator[Finding]:
    """Yield findings about GPUs, the CPU, and the shared memory of the data loaders."""
    yield from _gpus()
    yield _cpu()
    yield from _shared_memory()


def _gpus() -> Iterator[Finding]:
    try:
        torch = import_torch()
        found = list(gpus(torch))
    except Exception as error:  # a broken driver or build can raise anything
        cure = "update the NVIDIA driver, or set num_gpu: 0"
        yield problem("GPU", f"cannot be checked: {named(error)}", "runs use all GPUs found", cure)
        return
    for number, gpu in enumerate(found):
        bf16 = "bf16" if gpu.bf16 else "no bf16 in hardware, keep train.precision: fp32"
        yield ok(f"GPU {number}", f"{gpu.name}, {gpu.memory / GIB:.1f} GiB, {bf16}")
    if found:
        return
    if not has_nvidia_driver():
        yield ok("GPU", "none; runs use the CPU")
    elif torch.version.cuda is None:
        cure = "install a build of torch with CUDA (https://pytorch.org/get-started)"
        yield warning("GPU", "not used", "this torch was built for the CPU only", cure)
    else:
        reason = f"torch, built for CUDA {torch.version.cuda}, sees none of this machine's GPUs"
        cure = "update the NVIDIA driver, check that CUDA_VISIBLE_DEVICES is not empty; in docker: --gpus all"
        yield warning("GPU", "not used", reason, cure)


def _cpu() -> Finding:
    cores, threads = usable_cores(), torch_threads()
    fact = f"{_plural(threads, 'thread')} for torch, {_plural(cores.count, 'core')} for this process ({cores.why()})"
    given = [f"{name}={os.environ[name]}" for name in OPENMP if name in os.environ]
    fact += f", {' '.join(given)}" if given else ""
    support = bf16_instructions()
    if support is None:
        fact += "; whether it has bf16 is unknown"
    else:
        fact += f"; bf16 by {' and '.join(support)}" if support else "; no bf16 in hardware"
    if isinstance(threads, int) and threads > cores.count:
        cure = (
            f"set OMP_NUM_THREADS={cores.count}" if "OMP_NUM_THREADS" in os.environ else "leave the choice to basicsr"
        )
        return warning("CPU", fact, "more threads than cores slow each other down", cure)
    return ok("CPU", fact)


def _plural(number: int | str, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _shared_memory() -> Iterator[Finding]:
    size = shared_memory()
    if size is None:
        return
    fact = f"{size / MIB:,.0f} MiB free in {SHARED_MEMORY}"
    if size >= LEAST_SHARED_MEMORY:
        yield ok("shared memory", fact)
        return
    yield warning(
        "shared memory",
        fact,
        "data loaders pass their batches through it, and are killed when it is full",
        "docker run --shm-size=1g, or datasets.train.num_worker_per_gpu: 0",
    )


def import_torch() -> Any:
    """Return the module torch."""
    import torch

    return torch


def gpus(torch: Any) -> Iterator[Gpu]:
    """Yield the CUDA devices that torch finds."""
    if not torch.cuda.is_available():
        return
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        # Ampere, with compute capability 8, is the first generation with bf16 in hardware.
        yield Gpu(properties.name, properties.total_memory, properties.major >= 8)


def has_nvidia_driver() -> bool:
    """Return whether this machine seems to have an NVIDIA GPU, even if torch does not find it."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def torch_threads() -> int | str:
    """Return the number of threads that torch computes with, or "unknown"."""
    try:
        return int(import_torch().get_num_threads())
    except Exception:  # torch itself is reported elsewhere
        return "unknown"


def shared_memory() -> int | None:
    """Return the free bytes of shared memory, or None if the system has none."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None
