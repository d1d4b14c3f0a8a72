"""Check disks (space, permission, file system), and list active runs."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.diagnostics.diagnosis import Finding, ok, problem, warning
from gramgan_plugin.utils.io import lock_holder, real_path

GB = 10**9
SPARE, LEAST = 5 * GB, GB // 2

NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ncpfs"),
    *("lustre", "gpfs", "beegfs", "panfs", "pvfs2", "orangefs", "ceph", "glusterfs", "wekafs", "davfs"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.davfs2", "fuse.rclone", "fuse.s3fs"),
    *("fuse.gcsfuse", "fuse.mount-s3", "fuse.juicefs", "fuse.blobfuse", "fuse.blobfuse2", "fuse.lustre"),
}


def working_directory() -> Iterator[Finding]:
    """Yield findings about space and permission in the working and the temporary directory."""
    here = Path.cwd()
    kind = file_system(here)
    slow = ", a network file system: keep LMDBs on a local disk" if kind in NETWORK_FILE_SYSTEMS else ""
    yield ok("working directory", f"{here} on {kind or 'a file system of unknown kind'}{slow}")
    error = write_error(here)
    if error is not None:
        reason = "runs write experiments/, results/ and tb_logger/ here"
        yield problem("working directory", f"cannot be written: {error}", reason, "work in a folder of your own")
    yield _space("working directory", here, "checkpoints of a full-size run take gigabytes")
    temporary = Path(tempfile.gettempdir())
    yield _space("temporary directory", temporary, "torch, data loaders and downloads use it", " (or set TMPDIR)")


def dataroots(options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the file system of each data set in the options; a warning for an LMDB on a network file system.

    Missing data are reported by the check of the options.
    """
    for key, block in (options.get("datasets") or {}).items():
        for name in ("dataroot_gt", "dataroot_lq"):
            value = block.get(name) if isinstance(block, Mapping) else None
            for root in value if isinstance(value, list) else [value]:
                if isinstance(root, str) and Path(root).expanduser().exists():
                    yield _dataroot(f"datasets.{key}.{name}", Path(root).expanduser(), block)


def _dataroot(key: str, root: Path, block: Mapping[str, Any]) -> Finding:
    kind = file_system(root)
    is_lmdb = root.suffix == ".lmdb" or (block.get("io_backend") or {}).get("type") == "lmdb"
    if is_lmdb and kind in NETWORK_FILE_SYSTEMS:
        return warning(
            key,
            f"{root}: an LMDB on {kind}",
            "LMDB maps its file into memory: over a network each read is slow, and writing is unsafe",
            "copy the folder to a local disk, and name that in the option",
        )
    return ok(key, f"{root} on {kind or 'a file system of unknown kind'}")


def runs(experiments: Path = Path("experiments")) -> Iterator[Finding]:
    """Yield the active runs in the working directory."""
    for holder in sorted(experiments.glob("*/.lock.json")):
        if is_locked(holder.with_name(".lock")):
            yield ok("live run", f"{holder.parent}, held by {lock_holder(holder)}")


def _space(topic: str, folder: Path, reason: str, alternative: str = "") -> Finding:
    free = free_bytes(folder)
    fact = f"{free / GB:.1f} GB free in {folder}"
    if free >= SPARE:
        return ok(topic, fact)
    return (problem if free < LEAST else warning)(topic, fact, reason, f"free some space{alternative}")


def free_bytes(folder: Path) -> int:
    """Return how many bytes can be written in a folder."""
    return shutil.disk_usage(folder).free


def write_error(folder: Path) -> str | None:
    """Return why no file can be created in a folder, or None if one can; the test file is deleted."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def file_system(path: Path) -> str | None:
    """Return the type of a path's file system (``ext4``, ``nfs4``), or None if the system does not report it."""
    place = real_path(path)
    best, kind = -1, None
    for mount, type_of_it in mounts():
        # The last of several mounts on one folder covers the others.
        if len(mount.parts) >= best and place.is_relative_to(mount):
            best, kind = len(mount.parts), type_of_it
    return kind


def mounts() -> list[tuple[Path, str]]:
    """Return the folder and the type of each mounted file system, in the order of mounting."""
    try:
        import psutil

        return [(Path(one.mountpoint), one.fstype) for one in psutil.disk_partitions(all=True)]
    except (ImportError, OSError, RuntimeError):  # the doctor also runs where something is missing
        return []


def is_locked(lock: Path) -> bool:
    """Return whether a run holds its lock; a killed run leaves the file, but no lock.

    The check takes a shared lock for a moment and writes nothing.
    """
    try:
        import fcntl

        with lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except ImportError:  # Windows: only the holder's file can be checked
        return True
    except OSError:
        return False
    return False
