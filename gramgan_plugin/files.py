"""Files written whole or not at all. Imports nothing heavy; checkpoints, which are synced too, have their own."""

from pathlib import Path

from gramgan_plugin.errors import file_errors


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it; its folder is made if it is not there.

    Args:
        path: the file; what stood there before stays until the new one is whole.
        content: all of it.

    Raises:
        UserError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
