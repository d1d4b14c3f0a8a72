"""The lines that report exceptions that the user can fix. Imports nothing heavy."""

import re
import sys

from gramgan_plugin.errors import UserError, is_out_of_memory, os_problem
from gramgan_plugin.utils.text import first_line, printable

GET_BASICSR = "pip install basicsr==1.4.2, on Python 3.11 or 3.12 (its last release cannot be built on later ones)"
LESS_MEMORY = {
    "train": "lower datasets.train.batch_size_per_gpu or gt_size, or set train.precision: bf16",
    "test": "set val.tile, or num_gpu: 0 to use the machine's own memory",
    "prepare": "remove the largest photos, or cut them first",
}
# torch reports these as plain RuntimeErrors.
NO_SHARED_MEMORY = re.compile(r"shared memory|</?torch_\d+")
WORKER_KILLED = re.compile(r"DataLoader worker \(pid \d+\) is killed by signal: (Killed|Bus error)")
# Operations that torch refuses under `deterministic: true`.
NOT_DETERMINISTIC = re.compile(r"^(?P<operation>\S+) does not have a deterministic implementation")
CUBLAS_NOT_DETERMINISTIC = re.compile(r"not deterministic because it uses CuBLAS")
# LMDB's errors for damaged files; its other errors are misuse.
DAMAGED_LMDB = {"CorruptedError", "InvalidError", "VersionMismatchError", "PageNotFoundError", "DiskError"}


def explain(error: BaseException, command: str) -> list[str] | None:
    """Return the lines about an error that the user can fix, or None if it is a bug of ours.

    Args:
        error: the exception that ended the command.
        command: the subcommand, which decides on the advice.
    """
    if isinstance(error, UserError):
        return str(error).splitlines()
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "basicsr":
        return [f"BasicSR is not installed, which this command needs: {GET_BASICSR}"]
    line = _message(error)
    if is_out_of_memory(error):
        advice = LESS_MEMORY.get(command, "close other programs")
        return [f"out of memory ({line}); {advice}"]
    if isinstance(error, RuntimeError) and (NO_SHARED_MEMORY.search(line) or WORKER_KILLED.search(line)):
        return [
            f"a process that loads data ran out of memory ({line}); lower datasets.train.num_worker_per_gpu "
            "(0 loads in the training process), or give the machine more shared memory (docker run --shm-size=1g)"
        ]
    if isinstance(error, RuntimeError) and (refused := NOT_DETERMINISTIC.match(line)):
        return [
            f"deterministic: torch has no deterministic {refused['operation']} on this device; "
            "set `deterministic: false`, or turn off what uses it"
        ]
    if isinstance(error, RuntimeError) and CUBLAS_NOT_DETERMINISTIC.search(line):
        return ["deterministic: the environment variable CUBLAS_WORKSPACE_CONFIG must be :4096:8 or :16:8; unset it"]
    if type(error).__module__.startswith("lmdb") and type(error).__name__ in DAMAGED_LMDB:
        return [f"a damaged LMDB ({line}); prepare it again"]
    if isinstance(error, RuntimeError) and "Could not determine home directory" in line:  # pathlib's
        return ["a path begins with ~ and a user name that this machine does not have; write the whole path"]
    if isinstance(error, OSError):
        problem = os_problem(error)
        return None if problem is None else [problem]
    return None


def warn(command: str, line: str) -> None:
    """Print a warning as one line on stderr."""
    print(f"basicsr {command}: warning: {printable(line)}", file=sys.stderr)


def _message(error: BaseException) -> str:
    """Return an error's message in one line; for an error in a loading process, the message of that error."""
    line = first_line(error)
    if line.startswith("Caught ") and "DataLoader worker process" in line:
        return re.sub(r"^[\w.]+: ", "", str(error).strip().splitlines()[-1])
    return line.rstrip(". ")
