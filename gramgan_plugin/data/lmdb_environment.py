"""Open LMDBs for reading, once in each process, and measure how much they hold."""

import os
import threading
import weakref
from pathlib import Path

import lmdb

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import real_path

META_INFO = "meta_info.txt"

# lmdb refuses to open a path twice in one process, so all readers of a process share its environment.
# A child must not use its parent's environment after a fork; the process id shows this.
_environments: "weakref.WeakValueDictionary[str, lmdb.Environment]" = weakref.WeakValueDictionary()
_environments_pid = os.getpid()
_lock = threading.Lock()


def open_environment(path: Path) -> lmdb.Environment:
    """Return this process's environment for the LMDB at ``path``; it is closed with its last reference.

    Threads that read at the same time should share one environment instead of opening it for each image.

    Raises:
        lmdb.Error: if it is not an LMDB, is damaged, or other code in this process has it open.
    """
    global _environments_pid, _lock
    if _environments_pid != os.getpid():
        _lock = threading.Lock()  # a thread of the parent may have held the old lock
        for inherited in list(_environments.values()):
            inherited.close()
        _environments.clear()
        _environments_pid = os.getpid()
    name = str(real_path(path))
    with _lock:
        environment = _environments.get(name)
        if environment is None:
            environment = lmdb.open(name, readonly=True, lock=False, readahead=False, create=False)
            _environments[name] = environment
    return environment


def extent(path: Path) -> dict[str, int]:
    """Return ``entries``, ``bytes`` in use and ``transactions`` of an LMDB, from its first two pages.

    Raises:
        lmdb.Error: see ``open_environment``.
    """
    environment = open_environment(path)
    return {
        "entries": int(environment.stat()["entries"]),
        "bytes": bytes_in_use(environment),
        "transactions": int(environment.info()["last_txnid"]),
    }


def check_whole(path: Path, environment: lmdb.Environment) -> int:
    """Return the number of entries; refuse a truncated file.

    LMDB maps the file into memory, and the system kills a process that reads beyond its end.

    Raises:
        UserError: if it is truncated.
    """
    needed = bytes_in_use(environment)
    size = (path / "data.mdb").stat().st_size
    if size < needed:
        raise UserError(f"{path / 'data.mdb'}: cut short, {size} of {needed} bytes; copy or prepare it again")
    return int(environment.stat()["entries"])


def bytes_in_use(environment: lmdb.Environment) -> int:
    """Return the size in bytes of an LMDB's file up to its last used page."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])
