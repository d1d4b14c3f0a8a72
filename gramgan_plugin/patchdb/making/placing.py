"""Write a database to its place atomically; an older one stays until the new one is complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gramgan_plugin.patchdb.database_manifest import ARRAYS, MANIFEST, SOURCES
from gramgan_plugin.utils.interruptions import sigterm_raises
from gramgan_plugin.utils.staging import MOVED, FolderType, staging

SCRATCH = ".scratch"
INDEX = "index"
OWN = frozenset((*ARRAYS, MANIFEST, SOURCES, INDEX, MOVED))


def _why_not_database(path: Path) -> str | None:
    # The manifest alone is not enough: a data set's LMDB has a file of that name, too.
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in OWN) if path.is_dir() else [path.name]
    return f"holds {foreign[0]}, which is not part of a patch database" if foreign else None


DATABASE = FolderType(MANIFEST, _why_not_database)


@contextmanager
def placed(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to fill, which is renamed to ``out`` when the block succeeds; see ``staging``.

    If the block fails, also by Ctrl-C or SIGTERM, the folder is deleted and ``out`` stays as it was. Folders of killed
    processes are deleted by the next one.

    Args:
        out: the final name.
        overwrite: replace an existing database.

    Raises:
        UserError: if ``out`` exists and may not be replaced, is being made by another process, or cannot be written.
        Preempted: after SIGTERM.
    """
    with staging(out, DATABASE, overwrite) as stage, sigterm_raises():
        yield stage.path
        (stage.path / SCRATCH).unlink(missing_ok=True)
