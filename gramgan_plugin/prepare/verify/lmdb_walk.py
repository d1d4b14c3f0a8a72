"""Read a whole LMDB. This is a separate program, since LMDB may crash the process on damaged pages.

Usage: ``python lmdb_walk.py PATH``. It writes lines to stdout: ``entries N``; ``key HEX`` for every key; then ``done``,
or ``error`` and the reason. If neither comes, it has crashed. It imports nothing of the package, so that it starts
fast.
"""

import os
import sys
from pathlib import Path

import lmdb

PAGE = 4096


def main(path: str) -> None:
    """Print the keys of the LMDB at ``path``, and read every page of every image."""
    try:
        environment = lmdb.open(path, readonly=True, lock=False, create=False)
        print(f"entries {environment.stat()['entries']}", flush=True)
        problem = _cut_short(path, environment) or _walk(environment)
    except (lmdb.Error, OSError, OverflowError, ValueError) as error:
        problem = str(error)
    print(f"error {' '.join(problem.split())}" if problem else "done", flush=True)


def _cut_short(path: str, environment: lmdb.Environment) -> str | None:
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (Path(path) / "data.mdb").stat().st_size
    return f"cut short, {size} of {needed} bytes" if size < needed else None


def _walk(environment: lmdb.Environment) -> str | None:
    entries, count, last = environment.stat()["entries"], 0, b""
    with environment.begin(buffers=True) as transaction:
        for view, value in transaction.cursor():
            key = bytes(view)
            count += 1
            if count > entries or (count > 1 and key <= last):
                return f"its keys are out of order at number {count}"
            last = key
            bytes(value[::PAGE])  # an unreadable disk block kills the process, too
            bytes(value[-1:])
            found = transaction.get(key)  # a search of the tree, as a reader does it
            if found is None or len(found) != len(value):
                return f"key number {count} cannot be found"
            print("key", key.hex())
    return None if count == entries else f"it counts {entries} entries and holds {count}"


if __name__ == "__main__":
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an expected result here and needs no core dump
    main(sys.argv[1])
