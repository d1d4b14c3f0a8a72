"""Processes that train together, for tests: they share a process group over gloo, and hand back what they end with."""

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

# Imported once by the server that the processes are forked from, instead of by each of them.
IMPORTS = [
    "gramgan_plugin",
    "basicsr",
    "gramgan_plugin.training",
    "gramgan_plugin.config",
    "tests.training.two_processes",
]


@dataclass
class End:
    """How a process ended: what its function returned or raised, its exit code, and when (seconds after the start)."""

    value: Any = None
    error: tuple[str, str] | None = None  # class, message
    code: int | None = None
    seconds: float = 0.0
    stderr: str = ""


class Processes:
    """``count`` processes that run ``function(*args)``, as a launcher would have started them."""

    def __init__(self, count: int, function: Callable[..., Any], *args: Any) -> None:
        context = _context()
        self.folder = Path.cwd()
        self.start = time.monotonic()
        self.pipes, self.processes = [], []
        port = _free_port()
        for rank in range(count):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(theirs, str(self.folder), rank, count, port, function, args))
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
                process.join()

    def wait(self, timeout: float = 100) -> list[End]:
        """How each ended; one that is still there after ``timeout`` seconds has no exit code."""
        ends = [End() for _ in self.processes]
        left = set(range(len(ends)))
        deadline = time.monotonic() + timeout
        while left and time.monotonic() < deadline:
            for rank in sorted(left):
                self.processes[rank].join(0.02)
                if self.processes[rank].exitcode is not None:
                    left.remove(rank)
                    ends[rank].seconds = time.monotonic() - self.start
        for rank, end in enumerate(ends):
            end.code = self.processes[rank].exitcode
            end.stderr = (self.folder / f"stderr{rank}").read_text()
            try:
                if self.pipes[rank].poll():
                    end.value, end.error = self.pipes[rank].recv()
            except EOFError:
                pass
        return ends


def together(count: int, function: Callable[..., Any], *args: Any, timeout: float = 100) -> list[End]:
    """Run ``function(*args)`` in processes that can join each other, and wait for them."""
    with Processes(count, function, *args) as processes:
        return processes.wait(timeout)


def basicsr(*arguments: str) -> int:
    """The command line ``basicsr ARGUMENTS``."""
    from gramgan_plugin.cli.main import main

    return main(arguments)


def _run(pipe: Connection, folder: str, rank: int, count: int, port: int, function: Any, args: Any) -> None:
    os.chdir(folder)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)  # it may have been loaded before
    log = os.open(f"stderr{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    try:
        value, error = function(*args), None
    except BaseException as exception:
        traceback.print_exc()
        value, error = None, (type(exception).__name__, str(exception))
    pipe.send((value, error))
    pipe.close()
    sys.exit(value if isinstance(value, int) and error is None else int(error is not None))


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    with pytest.MonkeyPatch.context() as patch:
        # The server, started here once, is to import what is tested here.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        forkserver.ensure_running()
    return context


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
