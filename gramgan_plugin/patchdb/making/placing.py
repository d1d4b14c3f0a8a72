"""A database that appears at its name whole or not at all; one that stands there stays until then."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gramgan_plugin.patchdb.database_manifest import ARRAYS, MANIFEST, SOURCES
from gramgan_plugin.prepare.pack import sigterm_raises
from gramgan_plugin.prepare.staging import Kind, staging

SCRATCH = ".scratch"
INDEX = "index"
OWN = frozenset((*ARRAYS, MANIFEST, SOURCES, INDEX))


def _no_database(path: Path) -> str | None:
    # By its manifest alone, a data set's LMDB could be taken for one.
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in OWN) if path.is_dir() else [path.name]
    return f"holds {foreign[0]}, which is no part of a patch database" if foreign else None


DATABASE = Kind(MANIFEST, _no_database)


@contextmanager
def placed(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` when the block ends well; see ``staging``.

    If the block fails, by Ctrl-C and SIGTERM, too, the folder is deleted and ``out`` is as it was. What a killed
    process has left is deleted by the next one.

    Args:
        out: the final name.
        overwrite: replace a database that stands there.

    Raises:
        UserError: if ``out`` exists and may not be replaced, is being made by another process, or cannot be written.
        Preempted: after SIGTERM.
    """
    with staging(out, overwrite, kind=DATABASE) as stage, sigterm_raises():
        yield stage.path
        (stage.path / SCRATCH).unlink(missing_ok=True)
