"""LMDB environments for reading, shared by all readers of a process, and how much an LMDB holds."""

import os
import threading
import weakref
from pathlib import Path

import lmdb

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import real_path

META_INFO = "meta_info.txt"

# lmdb refuses to open a path twice in one process, so the readers of a process share its environment.
# After a fork the parent's environment must not be used any more: the process id shows it.
_environments: "weakref.WeakValueDictionary[str, lmdb.Environment]" = weakref.WeakValueDictionary()
_environments_pid = os.getpid()
_lock = threading.Lock()


def open_environment(path: Path) -> lmdb.Environment:
    """This process's environment for the LMDB at ``path``; it is closed when nobody holds it any more.

    Threads that read at the same time should hold one environment rather than open it for each image.

    Raises:
        lmdb.Error: if it is none, is damaged, or other code of this process has it open.
    """
    global _environments_pid, _lock
    if _environments_pid != os.getpid():
        _lock = threading.Lock()  # another thread of the parent may have held it
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
    """Return how much an LMDB holds, by its first two pages: ``entries``, ``bytes`` in use, ``transactions``.

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
    """Return the number of entries; a file that was cut short is refused.

    LMDB maps the file into memory, and the system kills a process that reads behind its end.

    Raises:
        UserError: if it was.
    """
    needed = bytes_in_use(environment)
    size = (path / "data.mdb").stat().st_size
    if size < needed:
        raise UserError(f"{path / 'data.mdb'}: cut short, {size} of {needed} bytes; copy or prepare it again")
    return int(environment.stat()["entries"])


def bytes_in_use(environment: lmdb.Environment) -> int:
    """Return the bytes of an LMDB's file up to its last page in use."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])
