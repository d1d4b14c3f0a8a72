"""Join the process group of a run, communicate in it, and leave it."""

import os
import re
import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import distributed

from gramgan_plugin.errors import Preempted, UserError
from gramgan_plugin.utils.text import first_line, shortened

# Messages of gloo, nccl and their store when another process has died or does not answer.
_DIED = re.compile(
    r"closed by peer|[Cc]onnection reset|[Bb]roken pipe|[Ss]ocket closed|[Cc]onnection refused|remote worker crash"
    r"|ncclRemoteError|remote process exited|got 0 bytes|[Ff]ailed to recv|pair closure"
)
_SILENT = re.compile(r"[Tt]imed out waiting|[Tt]imeout|ran for \d+ milliseconds")
_OF_A_BACKEND = re.compile(r"\bgloo\b|NCCL|\bnccl|TCPStore|c10d")


class PeerLost(UserError):  # noqa: N818
    """Another process of the run has died, so this one cannot continue."""


@contextmanager
def joined(launcher: str, *, use_gpus: bool = True) -> Iterator[tuple[int, int]]:
    """Join the process group inside a block, and leave it with ``stop``.

    Args:
        launcher: as in ``start``.
        use_gpus: as in ``start``.

    Yields:
        (rank, world size).

    Raises:
        UserError: as ``start``, and if another process dies inside the block.
    """
    place = start(launcher, use_gpus=use_gpus)
    clean = False
    try:
        with peer_errors():
            yield place
        clean = True
    except Preempted:  # all processes agreed on it
        clean = True
        raise
    finally:
        stop(clean)


def start(launcher: str, *, use_gpus: bool = True) -> tuple[int, int]:
    """Join the process group that ``--launcher`` names.

    One group uses nccl for tensors on GPUs and gloo for those on the CPU.

    Args:
        launcher: ``none``; ``pytorch``, whose torchrun sets RANK, WORLD_SIZE and LOCAL_RANK; or ``slurm``.
        use_gpus: whether the run may use this machine's GPUs.

    Returns:
        (rank, world size).

    Raises:
        UserError: if the launcher's environment variables are missing, or the processes do not find each other.
    """
    if launcher == "none":
        return 0, 1
    environment = os.environ
    if launcher == "slurm":
        _fill_in_from_slurm(environment)
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        how = "torchrun" if launcher == "pytorch" else "srun"
        raise UserError(f"--launcher {launcher}: {', '.join(missing)} not set; start the command with {how}")
    _check_place(launcher, environment)
    gpus = use_gpus and torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    except (distributed.DistNetworkError, distributed.DistStoreError) as error:
        place = f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
        raise UserError(
            f"--launcher {launcher}: the processes cannot meet at {place} ({first_line(error)}); is another run there? "
            "(torchrun --standalone finds a free port; MASTER_PORT sets one)"
        ) from error
    return distributed.get_rank(), distributed.get_world_size()


def stop(clean: bool = False) -> None:
    """Leave the process group, if one was joined.

    Args:
        clean: this process has done all its work, so it waits for the others: destroying a group while others
            communicate in it sometimes aborts. After an error it must not wait: the others wait for it elsewhere,
            and end when it exits.

    Raises:
        PeerLost: if another process has died before this point.
    """
    if not _is_joined():
        return
    together = False
    try:
        if clean:
            with peer_errors():
                agree(0)
            together = True
    finally:
        # With nccl, destroying waits for pending operations with the others; the end of this process does not.
        if together or "nccl" not in distributed.get_backend_config():
            distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """Return (rank, world size); (0, 1) without a process group."""
    return (distributed.get_rank(), distributed.get_world_size()) if _is_joined() else (0, 1)


def agree(value: int) -> int:
    """Return the largest value of all ranks, or the value itself without a process group. Every rank must call it."""
    if not _is_joined():
        return int(value)
    largest = torch.tensor(int(value))
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


def gather(value: Any) -> list[Any]:
    """Return every rank's value, in the order of ranks, on every rank. Every rank must call it.

    Args:
        value: anything that can be pickled; only the run's own processes exchange it.
    """
    if not _is_joined():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def gather_on_first(value: Any) -> list[Any]:
    """Return the values as ``gather`` does on rank 0, and an empty list on other ranks."""
    if not _is_joined():
        return [value]
    values = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
    distributed.gather_object(value, values)
    return values or []


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turn the errors of collective operations after another process died into one line that says so.

    Example:
        >>> with peer_errors():
        ...     raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:20193")
        Traceback (most recent call last):
        gramgan_plugin.utils.distributed.PeerLost: another process of this run has died; its own message says \
why, or the system's log if it was killed
    """
    try:
        yield
    except RuntimeError as error:  # gloo raises RuntimeError, torch.distributed subclasses of it
        what = _peer_problem(error)
        if what is None:
            raise
        raise PeerLost(what) from error


def _peer_problem(error: RuntimeError) -> str | None:
    text = str(error)
    if not (isinstance(error, distributed.DistError) or _OF_A_BACKEND.search(text)):
        return None
    if _DIED.search(text):
        return "another process of this run has died; its own message says why, or the system's log if it was killed"
    if _SILENT.search(text):
        return "another process of this run has not answered for too long; its own messages may say why"
    return None


def _is_joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


SLURM_NAMES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
# Names of whole numbers, and the smallest of each.
_LEAST = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_PORT": 1}


def _check_place(launcher: str, environment: Mapping[str, str]) -> None:
    """Check values that would raise in torch, or make it wait for processes that do not exist.

    Raises:
        UserError: naming the variable, or Slurm's if the value comes from there.
    """

    def refuse(name: str, what: str) -> NoReturn:
        value, theirs = environment[name], SLURM_NAMES.get(name, "")
        name = theirs if launcher == "slurm" and environment.get(theirs) == value else name
        raise UserError(f"--launcher {launcher}: {name} is {shortened(value, 60)!r}, {what}")

    found = {}
    for name, least in _LEAST.items():
        value = environment.get(name, str(least))
        if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < least:
            refuse(name, f"expected a whole number of at least {least}")
        found[name] = int(value)
    if found["RANK"] >= found["WORLD_SIZE"]:
        refuse("RANK", f"but there are {found['WORLD_SIZE']} processes, whose ranks begin at 0")
    if found["MASTER_PORT"] > 65535:
        refuse("MASTER_PORT", "expected a port of at most 65535")
    # A name may not resolve yet where machines start together: torch tries again.
    if not re.fullmatch(r"[\w%:-]+(\.[\w-]+)*\.?", environment["MASTER_ADDR"]):
        refuse("MASTER_ADDR", "expected a machine's name or address")


def _fill_in_from_slurm(environment: MutableMapping[str, str]) -> None:
    """Set torch's missing variables from Slurm's."""
    for ours, theirs in SLURM_NAMES.items():
        if theirs in environment:
            environment.setdefault(ours, environment[theirs])
    if "RANK" not in environment:
        return
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    environment.setdefault("MASTER_ADDR", first_node(nodes) if nodes else "127.0.0.1")
    # Jobs and steps on one machine get different ports, below those that the system assigns.
    step = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
    environment.setdefault("MASTER_PORT", str(15000 + zlib.crc32(step.encode()) % 15000))


def first_node(nodes: str) -> str:
    """Return the first machine of a list in Slurm's form; it runs rank 0.

    >>> first_node("gpu[003-005,9],login1"), first_node("a1,a2"), first_node("r[1,3]n[07-10]-ib")
    ('gpu003', 'a1', 'r1n07-ib')
    """
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])
