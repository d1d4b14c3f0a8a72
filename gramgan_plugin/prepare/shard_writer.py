"""Write the pairs of a packed LMDB pair as shards of litdata's, which can be read in sequence from an object store."""

import os
import shutil
from pathlib import Path

from gramgan_plugin.data.lmdb_images import LmdbImages
from gramgan_plugin.data.shards import INDEX, MISSING
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import sync
from gramgan_plugin.utils.progress import tracked

SHARD_BYTES = 64 * 2**20


def check_litdata() -> None:
    """Refuse to begin without litdata.

    Raises:
        UserError: if it cannot be imported.
    """
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")  # it asks a server otherwise
    try:
        import litdata  # noqa: F401
    except ImportError as error:
        raise UserError(MISSING) from error


def write_shards(gt: Path, lq: Path, folder: Path, shard_bytes: int = SHARD_BYTES, progress: bool = True) -> int:
    """Copy the encoded images of an LMDB pair, in the order of the keys, to ``chunk-*.bin`` and ``index.json``.

    Args:
        gt: the LMDB of GT.
        lq: the one of LQ, with the same keys.
        folder: written anew; what an interrupted call has left is removed.
        shard_bytes: size of a shard, about; one pair at least.
        progress: report on stderr.

    Returns:
        The number of shards.
    """
    from litdata.streaming.writer import BinaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_bytes=shard_bytes)
    of_gt, of_lq = LmdbImages(gt), LmdbImages(lq)
    for number, key in enumerate(tracked(sorted(of_gt.keys), "pair", progress)):
        writer[number] = {"key": key, "gt": of_gt.read(key), "lq": of_lq.read(key)}
    writer.done()
    writer.merge(1)
    written = sorted(folder.glob("*.bin"))
    for path in (*written, folder / INDEX):
        sync(path)
    sync(folder)
    return len(written)
