"""Write the files of one data set: both LMDBs, ``names.jsonl``, the held-out photos."""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gramgan_plugin.data.lmdb_images import LmdbWriter
from gramgan_plugin.prepare.cut import Cuts
from gramgan_plugin.prepare.journal import JOURNAL, Journal
from gramgan_plugin.prepare.plan import Settings
from gramgan_plugin.prepare.staging import MARKER
from gramgan_plugin.utils.io import sync

BYTES_AT_ONCE = 16 * 2**20  # of GT and LQ in one transaction
GT = "GT.lmdb"
TEST = "test"


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


class DataSet:
    """A data set that takes photos' cuts in order and commits several at a time.

    Which photos share a transaction depends on their sizes alone, so the LMDBs depend neither on the number of threads
    nor on interruptions.

    Args:
        folder: the staging folder; an interrupted packing of the same job in it is resumed.
        settings: how photos become sub-images.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.counts = Counts()
        self.resumed = False
        self._waiting: list[Cuts] = []
        self._waiting_bytes = 0
        self._journal = Journal(folder)
        try:
            self._open(self._journal.records[-1] if self._journal.records else None)
        except (ValueError, KeyError, TypeError):  # after a loss of power the disk may have less than the journal says
            self._journal.close()
            (folder / JOURNAL).unlink()
            self._journal = Journal(folder)
            self._open(None)

    @property
    def lq_name(self) -> str:
        """Name of the LMDB of LQ sub-images."""
        return f"LQ_x{self.settings.scale}.lmdb"

    def add(self, cuts: Cuts) -> None:
        """Add the next photo; commit if enough data has been added."""
        self._waiting.append(cuts)
        self._waiting_bytes += sum(len(data) for kind in (cuts.gt, cuts.lq) for data in kind.values())
        if self._waiting_bytes >= BYTES_AT_ONCE:
            self.commit()

    def commit(self) -> None:
        """Write the added photos: the images first, the journal's line last."""
        if not self._waiting:
            return
        scale, level = self.settings.scale, self.settings.encoding.level_in_meta_info
        cut = [cuts for cuts in self._waiting if not cuts.entry.held and cuts.problem is None]
        for writer, kind, shrunk in ((self._gt, "gt", 1), (self._lq, "lq", scale)):
            data = {key: data for cuts in cut for key, data in getattr(cuts, kind).items()}
            sides = {key: place.size // shrunk for cuts in cut for key, place in cuts.windows}
            if data:
                writer.put(data, {key: (side, side, 3) for key, side in sides.items()}, level)
        for cuts in cut:
            for key, place in cuts.windows:
                row = {"key": key, "photo": cuts.entry.name, "x": place.x, "y": place.y}
                self._names.write(json.dumps({**row, "width": place.size, "height": place.size}).encode("ascii"))
                self._names.write(b"\n")
        self._names.flush()
        os.fsync(self._names.fileno())
        for cuts in self._waiting:
            if cuts.entry.held and cuts.problem is None:
                self._write_whole(cuts)
        self._count(cut)
        self._journal.append(self._record())
        self._waiting, self._waiting_bytes = [], 0

    def finish(self, facts: Mapping[str, Any], of_lq: Mapping[str, Any]) -> None:
        """Commit the rest and close all files.

        Args:
            facts: facts for both LMDBs' manifests.
            of_lq: further facts for the manifest of LQ.
        """
        self.commit()
        self._names.close()
        self._journal.close()
        self._gt.close({"kind": "gt", **facts})
        self._lq.close({"kind": "lq", **facts, **of_lq})

    def discard(self) -> None:
        """Close all files after a failure; committed data stays."""
        for close in (self._gt.discard, self._lq.discard, self._names.close, self._journal.close):
            with suppress(OSError):  # closing writes, and the disk may be full; report the first error
                close()

    def _open(self, last: Mapping[str, Any] | None) -> None:
        if last is None:
            for name in (GT, self.lq_name, TEST):  # of a process that was killed before its first commit
                shutil.rmtree(self.folder / name, ignore_errors=True)
            self.counts = Counts()
        else:
            skipped = [(name, why) for record in self._journal.records for name, why in record["skipped"]]
            self.counts = Counts(last["done"], last["photos"], last["sub_images"], last["held_out"], skipped)
        self._skipped_written = len(self.counts.skipped)  # skipped photos in the journal
        with ExitStack() as opened:
            self._names = opened.enter_context((self.folder / MARKER).open("ab"))
            self._gt = LmdbWriter(self.folder / GT, state=last and last["gt"])
            opened.callback(self._gt.discard)
            self._lq = LmdbWriter(self.folder / self.lq_name, state=last and last["lq"])
            opened.callback(self._lq.discard)
            end = last["names"] if last else 0
            if self._names.tell() < end:
                raise ValueError(f"{MARKER}: shorter than was written to it")
            self._names.truncate(end)
            self._names.seek(0, os.SEEK_END)
            for path in (self._gt.path, self._lq.path, self.folder):
                sync(path)
            opened.pop_all()
        self.resumed = last is not None

    def _count(self, cut: list[Cuts]) -> None:
        counts = self.counts
        counts.done += len(self._waiting)
        counts.photos += sum(bool(cuts.windows) for cuts in cut)
        counts.sub_images += sum(len(cuts.windows) for cuts in cut)
        counts.held_out += sum(cuts.entry.held and cuts.problem is None for cuts in self._waiting)
        counts.skipped += [(cuts.entry.name, cuts.problem) for cuts in self._waiting if cuts.problem is not None]

    def _record(self) -> dict[str, Any]:
        counts, written = self.counts, self._skipped_written
        self._skipped_written = len(counts.skipped)
        return {
            "done": counts.done,
            "photos": counts.photos,
            "sub_images": counts.sub_images,
            "held_out": counts.held_out,
            "skipped": counts.skipped[written:],
            "names": self._names.tell(),
            "gt": self._gt.state(),
            "lq": self._lq.state(),
        }

    def _write_whole(self, cuts: Cuts) -> None:
        for kind, data in (("GT", cuts.gt[""]), (f"LQ_x{self.settings.scale}", cuts.lq[""])):
            path = self.folder / TEST / kind / f"{Path(cuts.entry.name).stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            sync(path)
