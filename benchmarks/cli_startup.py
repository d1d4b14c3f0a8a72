"""Measure the time of `basicsr --help`, against a bare Python that does nothing, and a limit.

Each run is a new process; the first, with a cold file cache, does not count.

    python benchmarks/cli_startup.py
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 0.3  # seconds


def seconds(command: list[str], runs: int) -> float:
    """Return the median wall-clock time of a command."""
    taken = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description="Start-up time of the basicsr command.")
    parser.add_argument("--runs", type=int, default=9, help="processes to take the median of (default: %(default)s)")
    arguments = parser.parse_args()
    script = Path(sys.executable).with_name("basicsr")
    basicsr = [str(script)] if script.exists() else [sys.executable, "-m", "gramgan_plugin"]
    bare = seconds([sys.executable, "-c", "pass"], arguments.runs)
    taken = seconds([*basicsr, "--help"], arguments.runs)
    print(f"basicsr --help   {taken:.3f} s   (limit {LIMIT} s)")
    print(f"python -c pass   {bare:.3f} s   (ratio {taken / bare:.1f})")
    return 0 if taken < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
