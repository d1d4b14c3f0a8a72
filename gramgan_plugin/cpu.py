"""What this machine's CPU can do. Imports nothing, since it is asked while torch may be broken."""

from pathlib import Path

BF16 = {"avx512_bf16": "AVX-512", "amx_bf16": "AMX", "bf16": "Arm's bf16"}


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """The instructions for bf16 that the CPU has, or None where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    # x86 calls them flags, Arm Features.
    flags = next((line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "feat"))), None)
    if flags is None:
        return None
    return [name for flag, name in BF16.items() if flag in flags]
