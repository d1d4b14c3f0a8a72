"""Verify one LMDB: its list, its pages, its images, its fingerprint."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from gramgan_plugin.data.images import Image
from gramgan_plugin.data.lmdb_environment import META_INFO, open_environment
from gramgan_plugin.data.lmdb_manifest import MANIFEST, Digest, changed_since, read_manifest
from gramgan_plugin.data.photo_wholeness import check_jpeg_whole, checked_png
from gramgan_plugin.data.photos import PhotoError, photo_info
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.prepare.verify import lmdb_walk
from gramgan_plugin.prepare.verify.outcome import Check, State
from gramgan_plugin.utils.progress import tracked

LINE = re.compile(r"(?P<key>[^.\s]+)\.\w+ \((?P<height>\d+),(?P<width>\d+),(?P<channels>\d+)\) \d+")
CHANNELS = {
    "1": 1,
    "L": 1,
    "I": 1,
    "I;16": 1,
    "I;16B": 1,
    "LA": 4,
    "P": 3,
    "RGB": 3,
    "RGBA": 4,
}  # OpenCV's, by Pillow's mode
Shape = tuple[int, int, int]  # height, width, channels


class Database:
    """An LMDB under verification.

    Attributes:
        path: its folder.
        name: its name in the outcome.
        listed: the shape of each key in ``meta_info.txt``.
        stored: the keys of ``data.mdb``; None if its pages are damaged.
        checks: the checks so far.

    Raises:
        UserError: if the LMDB or its list is missing.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "data.mdb").is_file():
            raise UserError(f"{path}: no such LMDB (a folder with data.mdb)")
        self.path = path
        self.name = path.name
        self.listed: dict[str, Shape] = {}
        self.stored: set[str] | None = None
        self.digest = Digest()
        self.checks: list[Check] = []
        self.images = Check(self.name, "images")
        self._environment: lmdb.Environment | None = None
        with file_errors(path / META_INFO):
            try:
                self._text = (path / META_INFO).read_bytes().decode("ascii", "backslashreplace")
            except FileNotFoundError:
                raise UserError(f"{path}: has no {META_INFO}, which lists its keys; prepare it again") from None

    def inspect(self, show: bool) -> None:
        """Read the list and all pages; no image is decoded.

        Args:
            show: report the progress on stderr.
        """
        listing = Check(self.name, "list")
        self._read_list(listing)
        listing.end(f"{len(self.listed)} images in {META_INFO}", f"problems in {META_INFO}")
        pages, keys = Check(self.name, "pages"), Check(self.name, "keys")
        self.checks += [listing, pages, keys]
        stored: set[str] = set()
        try:
            stored.update(walk(self.path, show))
        except UserError as error:
            pages.state, pages.text = State.WRONG, str(error)
            keys.skip("data.mdb is damaged")
            return
        pages.text = "data.mdb can be read from end to end"
        self._environment = open_environment(self.path)
        self.stored = stored
        for key in sorted(self.listed.keys() - stored):
            keys.wrong(key, f"in {META_INFO}, not in data.mdb")
        for key in sorted(stored - self.listed.keys()):
            keys.wrong(key, f"in data.mdb, not in {META_INFO}")
        keys.end(f"{META_INFO} and data.mdb agree", "keys in only one of the two")

    def read(self, key: str) -> tuple[Image | None, str | None]:
        """Add an image to the fingerprint and decode it; several threads may call it.

        Returns:
            (H, W, 3) BGR as in training, and the problem, or None.
        """
        assert self._environment is not None
        with self._environment.begin() as transaction:
            data = transaction.get(key.encode("utf-8", "surrogateescape"))
        if data is None:
            return None, "not in data.mdb"
        self.digest.update(key, data)
        expected = self.listed.get(key)
        if expected is None:
            return None, None  # reported among the keys
        return decoded(data, expected)

    def content(self) -> tuple[Check, dict[str, Any] | None, bool]:
        """Compare the fingerprint of the images that were read with the recorded one.

        Returns:
            The check; the record, if it is valid; whether it should be written (again).
        """
        check = Check(self.name, "content", facts={"content": self.digest.hexdigest()})
        try:
            record = read_manifest(self.path)
        except UserError as error:
            check.wrong("", str(error))
            check.end("", "manifest")
            return check, None, False
        if self.stored is None:
            return check.skip("data.mdb is damaged"), record, False
        now = self.digest.hexdigest()
        if record is None:
            check.text = f"fingerprint {now[:12]}, none was recorded"
            return check, None, True
        if record["content"] != now:
            check.state = State.WRONG
            check.text = (
                f"the images are not those prepared or verified before: fingerprint {now[:12]}, recorded "
                f"{record['content'][:12]}; prepare it again, or if the change is intended, delete "
                f"{self.path / MANIFEST} and verify again"
            )
            return check, record, False
        change = changed_since(record, self.path)
        check.text = f"fingerprint {now[:12]}, as recorded"
        if change is not None:
            check.text += f", but in a new layout ({change})"
        return check, record, change is not None

    def _read_list(self, check: Check) -> None:
        for number, line in enumerate(self._text.splitlines(), start=1):
            match = LINE.fullmatch(line.strip())
            if match is None:
                check.wrong("", f"line {number}: expected 'KEY.png (height,width,channels) LEVEL'")
            elif match["key"] in self.listed:
                check.wrong(match["key"], f"line {number}: listed a second time")
            else:
                self.listed[match["key"]] = (int(match["height"]), int(match["width"]), int(match["channels"]))
        if not self.listed:
            check.wrong("", "lists no images")
        self._text = ""


def walk(path: Path, show: bool) -> Iterator[str]:
    """Yield the keys of an LMDB, read in a separate process, since LMDB may crash on damaged pages.

    Raises:
        UserError: if they are damaged, with the reason.
    """
    command = [sys.executable, "-P", lmdb_walk.__file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            first, _, entries = process.stdout.readline().strip().partition(" ")
            last, count = first, 0
            if first == "entries":
                for _ in tracked(range(int(entries) + 1), f"{path.name} key", show):
                    last, _, value = process.stdout.readline().strip().partition(" ")
                    if last != "key":
                        break
                    count += 1
                    yield bytes.fromhex(value).decode("utf-8", "surrogateescape")
            else:
                value = entries
        finally:
            process.kill()
    if last != "done":
        reason = value if last == "error" else f"LMDB crashed on it after {count} images"
        raise UserError(f"{path / 'data.mdb'}: damaged ({reason}); copy it again, or prepare it again")


def decoded(data: bytes, expected: Shape) -> tuple[Image | None, str | None]:
    """Decode one image, as training does, and compare it with the list.

    OpenCV fills missing parts of a JPEG and ignores wrong checksums in a PNG, so the file is checked first.

    Returns:
        (H, W, 3) BGR, and the problem, or None.
    """
    try:
        info = photo_info(data)
        found = (info.height, info.width, CHANNELS.get(info.mode, 3))
        if found != expected:  # known from the header, so that no more pixels are decoded than listed
            return None, f"{_size(found)}, {META_INFO} says {_size(expected)}"
        if info.format == "JPEG":
            check_jpeg_whole(data)
        elif info.format == "PNG":
            data = checked_png(data)
        elif info.format == "BMP" and int.from_bytes(data[2:6], "little") > len(data):
            raise PhotoError("cut short")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except PhotoError as error:
        return None, str(error)
    except cv2.error:
        pixels = None
    if pixels is None:
        return None, "cannot be decoded"
    return pixels, None


def _size(shape: Shape) -> str:
    return f"{shape[1]}x{shape[0]}, {shape[2]} channels"
