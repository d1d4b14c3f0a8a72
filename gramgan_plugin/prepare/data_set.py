"""Write the files of one data set: both LMDBs, ``names.jsonl``, the held-out photos."""

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lmdb

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.cut import Cuts
from gramgan_plugin.prepare.lmdb_writer import LmdbWriter
from gramgan_plugin.prepare.plan import Settings
from gramgan_plugin.prepare.prepared_folder import MARKER
from gramgan_plugin.utils.io import sync

BYTES_AT_ONCE = 16 * 2**20  # of GT and LQ in one transaction
GT = "GT.lmdb"
TEST = "test"
DAMAGE = (
    RecursionError,
    ValueError,
    TypeError,
    KeyError,
    UserError,
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
)


@dataclass
class Counts:
    """What was committed.

    Attributes:
        done: number of processed entries of the plan, skipped ones included.
        photos: number of photos that were cut.
        sub_images: number of sub-images.
        held_out: number of photos written whole.
        skipped: name and reason of photos that could not be used.
    """

    done: int = 0
    photos: int = 0
    sub_images: int = 0
    held_out: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, more: "Counts") -> None:
        """Add what was committed after that."""
        self.done += more.done
        self.photos += more.photos
        self.sub_images += more.sub_images
        self.held_out += more.held_out
        self.skipped += [(name, why) for name, why in more.skipped]


class DataSet:
    """A data set that takes photos' cuts in order and commits several at a time.

    Which photos share a transaction depends on their sizes alone, so the LMDBs depend neither on the number of threads
    nor on interruptions. What was committed is recorded in the transactions themselves.

    Args:
        folder: the staging folder; an interrupted packing of the same job in it is resumed.
        settings: how photos become sub-images.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.lq_name = f"LQ_x{settings.scale}.lmdb"
        self._waiting: list[Cuts] = []
        self._waiting_bytes = 0
        try:
            self._open()
        except DAMAGE:  # after a loss of power the disk may not have what it was given
            for name in (GT, self.lq_name):
                shutil.rmtree(folder / name, ignore_errors=True)
            self._open()
        self.resumed = self.closed or self.counts.done > 0

    def add(self, cuts: Cuts) -> None:
        """Add the next photo; commit if enough data has been added."""
        self._waiting.append(cuts)
        self._waiting_bytes += sum(len(data) for kind in (cuts.gt, cuts.lq) for data in kind.values())
        if self._waiting_bytes >= BYTES_AT_ONCE:
            self.commit()

    def commit(self) -> None:
        """Write the added photos: GT last, with the record that they are done."""
        if not self._waiting:
            return
        usable = [cuts for cuts in self._waiting if cuts.problem is None]
        cut = [cuts for cuts in usable if not cuts.entry.held]
        held = [cuts for cuts in usable if cuts.entry.held]
        for cuts in held:
            self._write_whole(cuts)
        rows = [
            {"key": key, "photo": cuts.entry.name, "x": at.x, "y": at.y, "width": at.size, "height": at.size}
            for cuts in cut
            for key, at in cuts.windows
        ]
        counts = Counts(
            done=len(self._waiting),
            photos=sum(bool(cuts.windows) for cuts in cut),
            sub_images=len(rows),
            held_out=len(held),
            skipped=[(cuts.entry.name, cuts.problem) for cuts in self._waiting if cuts.problem is not None],
        )
        level = self.settings.encoding.level_in_meta_info
        facts = {"counts": asdict(counts), "names": rows}
        for writer, kind, shrunk, recorded in ((self._lq, "lq", self.settings.scale, None), (self._gt, "gt", 1, facts)):
            data = {key: data for cuts in cut for key, data in getattr(cuts, kind).items()}
            sides = {key: place.size // shrunk for cuts in cut for key, place in cuts.windows}
            writer.put(data, {key: (side, side, 3) for key, side in sides.items()}, level, recorded)
        self.counts.add(counts)
        self._waiting, self._waiting_bytes = [], 0

    def finish(self, facts: Mapping[str, Any], of_lq: Mapping[str, Any]) -> None:
        """Commit the rest, write ``names.jsonl`` and close all files; the last step of a packing.

        Args:
            facts: facts for both LMDBs' manifests.
            of_lq: further facts for the manifest of LQ.
        """
        self.commit()
        with (self.folder / MARKER).open("wb") as names:
            for recorded in self._gt.facts():
                names.writelines(json.dumps(row).encode("ascii") + b"\n" for row in recorded["names"])
        if not self._lq.closed:
            self._lq.close({"kind": "lq", **facts, **of_lq})
        self._gt.close({"kind": "gt", **facts})

    def discard(self) -> None:
        """Close all files after a failure; committed data stays."""
        self._lq.discard()
        self._gt.discard()

    def _open(self) -> None:
        with ExitStack() as opened:
            self._lq = LmdbWriter(self.folder / self.lq_name)
            opened.callback(self._lq.discard)
            self._gt = LmdbWriter(self.folder / GT)
            opened.callback(self._gt.discard)
            if self._lq.closed != self._gt.closed and (self._gt.closed or not self._gt.puts):
                raise ValueError("one of the two is lost")
            # The last process may have ended between the two.
            done = self._gt.puts if self._lq.closed else min(self._lq.puts, self._gt.puts)
            for writer in (self._lq, self._gt):
                writer.rewind(done)
                sync(writer.path)
            sync(self.folder)
            self.counts = Counts()
            self.closed = self._gt.closed  # nothing is left but to rename the folder
            for recorded in () if self.closed else self._gt.facts():
                self.counts.add(Counts(**recorded["counts"]))
            opened.pop_all()

    def _write_whole(self, cuts: Cuts) -> None:
        for kind, data in (("GT", cuts.gt[""]), (f"LQ_x{self.settings.scale}", cuts.lq[""])):
            path = self.folder / TEST / kind / f"{Path(cuts.entry.name).stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            sync(path)
