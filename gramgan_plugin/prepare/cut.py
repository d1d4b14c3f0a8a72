"""Process a photo: decode it, make or read its LQ, cut both and encode the cuts. Thread-safe."""

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from gramgan_plugin.data.images import Image, decode, encode_png, mod_crop
from gramgan_plugin.data.photos import PhotoError, read_bytes, read_photo
from gramgan_plugin.prepare.detail import Selection, detail
from gramgan_plugin.prepare.plan import Entry, Settings, check_lq_size, key_of, lq_errors
from gramgan_plugin.prepare.shrink import shrink
from gramgan_plugin.prepare.subimages import Window
from gramgan_plugin.utils.threads import in_order, one_thread_each

HELD_OUT_LEVEL = 3  # of the PNG files of held-out photos


@dataclass
class Cuts:
    """The encoded sub-images of a photo.

    Attributes:
        entry: the photo.
        problem: why it cannot be used, or None.
        windows: key and window of each sub-image.
        gt: data of the sub-images, by key; the whole photo under "" if it is held out.
        lq: likewise for LQ.
    """

    entry: Entry
    problem: str | None = None
    windows: list[tuple[str, Window]] = field(default_factory=list)
    gt: dict[str, bytes] = field(default_factory=dict)
    lq: dict[str, bytes] = field(default_factory=dict)


class Cutter:
    """Processes photos in threads; OpenCV and torch release Python's lock.

    Args:
        settings: how photos become sub-images.
        workers: number of threads.

    Attributes:
        selection: which sub-images stay; None for all.
    """

    def __init__(self, settings: Settings, workers: int) -> None:
        self.settings = settings
        self.workers = workers
        self.selection: Selection | None = None
        self._only_check = threading.Event()

    def only_check(self) -> None:
        """From now on only decode photos, to find those that cannot be used."""
        self._only_check.set()

    def results(self, entries: Sequence[Entry]) -> Generator[Cuts, None, None]:
        """Yield the photos' cuts, in order. At most twice as many photos as threads are in memory."""
        with one_thread_each(), closing(in_order(self._cuts, entries, self.workers)) as done:
            for _, cuts in done:
                yield cuts

    def details(self, entries: Sequence[Entry]) -> Generator[dict[str, float], None, None]:
        """Yield the detail of each photo's sub-images, by key, in order; none of photos that cannot be used."""
        with one_thread_each(), closing(in_order(self._details, entries, self.workers)) as done:
            for _, found in done:
                yield found

    def sub_image(self, entry: Entry, key: str) -> Image:
        """Read one GT sub-image.

        Raises:
            PhotoError: if the photo cannot be used any more.
        """
        gt = mod_crop(self._read(entry.path), self.settings.scale)
        return _cut(gt, *dict(self._windows(entry, gt))[key])

    def _details(self, entry: Entry) -> dict[str, float]:
        if entry.held:
            return {}
        try:
            gt, _ = self._photos(entry)
        except PhotoError:  # which is reported when it is cut
            return {}
        return {key: detail(_cut(gt, *place)) for key, place in self._windows(entry, gt)}

    def _windows(self, entry: Entry, gt: Image) -> list[tuple[str, Window]]:
        places = self.settings.windows(gt.shape[1], gt.shape[0])
        return [(key_of(entry, count), place) for count, place in enumerate(places, start=1)]

    def _cuts(self, entry: Entry) -> Cuts:
        try:
            gt, lq = self._pair(entry)
        except PhotoError as error:
            return Cuts(entry, problem=str(error))
        if gt is None or lq is None:
            return Cuts(entry)
        if entry.held:
            return Cuts(entry, gt={"": encode_png(gt, HELD_OUT_LEVEL)}, lq={"": encode_png(lq, HELD_OUT_LEVEL)})
        scale, encode = self.settings.scale, self.settings.encoding.encode
        found = Cuts(entry)
        for key, place in self._windows(entry, gt):
            if self.selection is not None and key not in self.selection.kept:
                continue
            found.windows.append((key, place))
            found.gt[key] = encode(_cut(gt, *place))
            found.lq[key] = encode(_cut(lq, *(value // scale for value in place)))
        return found

    def _pair(self, entry: Entry) -> tuple[Image, Image] | tuple[None, None]:
        """Return mod-cropped GT and LQ; (None, None) while photos are only checked."""
        gt, lq = self._photos(entry)
        if self._only_check.is_set():
            return None, None
        return gt, lq if lq is not None else shrink(gt, self.settings.scale, self.settings.lq_kind)

    def _photos(self, entry: Entry) -> tuple[Image, Image | None]:
        """Return mod-cropped GT, and LQ if it is given; all that a photo is refused for is found here."""
        scale = self.settings.scale
        image = self._read(entry.path)
        if image.shape[:2] != (entry.height, entry.width):
            raise PhotoError(f"{image.shape[1]}x{image.shape[0]}, not {entry.width}x{entry.height} as its header says")
        gt = mod_crop(image, scale)
        if entry.lq is None:
            return gt, None
        with lq_errors(entry.lq):
            lq = self._read(entry.lq)
        check_lq_size(entry.lq, (lq.shape[1], lq.shape[0]), (image.shape[1], image.shape[0]), scale)
        return gt, lq[: gt.shape[0] // scale, : gt.shape[1] // scale]

    def _read(self, path: Path) -> Image:
        if not self.settings.as_stored:
            return read_photo(path)
        image = decode(read_bytes(path))
        if image is None:
            raise PhotoError("damaged: OpenCV cannot decode it")
        return image


def _cut(image: Image, x: int, y: int, size: int) -> Image:
    return image[y : y + size, x : x + size]
