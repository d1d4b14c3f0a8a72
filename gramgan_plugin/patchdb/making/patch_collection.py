"""Choose patches from photos: read in threads, offer patches to the reservoir, count those left out."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.photos import PhotoError
from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.database_manifest import SOURCES, Definition
from gramgan_plugin.patchdb.making.reservoir import NO_LIMIT, TIE_BITS, Reservoir, Rows, cell_words, priorities
from gramgan_plugin.patchdb.making.sampling import PATCHES_AT_ONCE, Places, cut_patches, find_places, likeness
from gramgan_plugin.patchdb.making.settings import Settings
from gramgan_plugin.patchdb.making.source_photos import Photo, Seen, pixels_sha256
from gramgan_plugin.patchdb.making.variants import RGB, variant_images
from gramgan_plugin.patchdb.store import VARIANTS, Store
from gramgan_plugin.prepare.plan import refusal
from gramgan_plugin.utils.io import SHA256
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.threads import in_order


class Offer(NamedTuple):
    """The patches of one photo.

    Attributes:
        seen: the photo's record.
        variants: for each variant its place in ``VARIANTS``, its image, and the places of its usable patches.
    """

    seen: Seen
    variants: list[tuple[int, RGB, Places]]


@dataclass
class Collection:
    """The patches chosen so far, and their photos.

    Attributes:
        definition: what a patch is.
        settings: how they are chosen.
        reservoir: holds the patches.
        photos: the photos, in the order of their numbers in the reservoir.
        repeated: number of repeated photos.
        skipped: name and reason of photos that could not be used.
    """

    definition: Definition
    settings: Settings
    reservoir: Reservoir
    photos: list[Seen] = field(default_factory=list)
    repeated: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number_of(self, seen: Seen) -> tuple[int, bool]:
        """Return a photo's number, and whether it is new."""
        known = self._numbers.get(seen.sha256)
        if known is not None:
            return known, False
        number = self._numbers[seen.sha256] = len(self.photos)
        self.photos.append(seen)
        return number, True

    def has(self, sha256: str) -> bool:
        """Return whether a photo with these pixels was added."""
        return sha256 in self._numbers

    def add(self, offer: Offer) -> None:
        """Offer a photo's patches to the reservoir, unless the photo was added before."""
        number, new = self.number_of(offer.seen)
        if not new:
            self.repeated += 1
            return
        cells = cell_words([offer.seen.sha256])[0]
        for variant, image, places in offer.variants:
            for first in range(0, len(places.y), PATCHES_AT_ONCE):
                if first > self.reservoir.highest_rank:
                    break
                y, x = (place[first : first + PATCHES_AT_ONCE] for place in (places.y, places.x))
                ranks = np.arange(first, first + len(y), dtype=np.int32)
                margin = self.definition.margin
                patches = cut_patches(image, self.definition.kept_side, y - margin, x - margin)
                origins = np.stack([np.full_like(y, number), y, x, np.full_like(y, variant)], axis=1)
                self._offer(Rows(patches, origins, ranks), cells[[variant]])

    def add_store(self, store: Store) -> None:
        """Offer all patches of a database.

        Raises:
            UserError: if its files do not match.
        """
        photos = list(read_photos(store))
        numbers = np.array([self.number_of(seen)[0] for seen in photos], np.int32)
        cells = cell_words([seen.sha256 for seen in photos])
        for first in range(0, store.count, PATCHES_AT_ONCE):
            part = slice(first, first + PATCHES_AT_ONCE)
            origins, ranks = np.array(store.origins[part]), np.array(store.ranks[part])
            photo, variant = origins[:, 0].copy(), origins[:, 3]
            beyond = photo.max() >= len(photos) or variant.max() >= len(VARIANTS)
            if beyond or min(photo.min(), variant.min(), ranks.min()) < 0:
                raise UserError(f"{store.path}: damaged (origins.npy has photos that {SOURCES} lacks); build it again")
            origins[:, 0] = numbers[photo]
            self._offer(Rows(np.array(store.patches[part]), origins, ranks), cells[photo, variant])

    def near_duplicates(self) -> int:
        """Return how many patches were left out only because they are near-duplicates of others.

        Unlike a count of dropped patches, this number does not depend on the order of reading.
        """
        usable = np.array([seen.usable for seen in self.photos], np.int64)
        if self.reservoir.limit == NO_LIMIT:
            return int(usable.sum()) - self.reservoir.count
        last = int(self.reservoir.limit >> TIE_BITS)
        cells = cell_words([seen.sha256 for seen in self.photos])
        own_last = priorities(cells, np.full(cells.shape, last)) <= self.reservoir.limit
        wanted = np.minimum(usable, last) + ((usable > last) & own_last)
        return int(wanted.sum()) - self.reservoir.count

    def _offer(self, rows: Rows, cells: NDArray[np.uint64]) -> None:
        alike = likeness(self.definition.inner(rows.patches), self.settings.thin)
        self.reservoir.add(alike, priorities(cells, rows.ranks), rows)


def collect(into: Collection, photos: Sequence[Photo], *, on_error: str, workers: int, progress: bool) -> None:
    """Read photos and offer their patches.

    Args:
        into: the collection to add patches to.
        photos: photos to read; their order does not change the choice.
        on_error: ``stop`` at or ``skip`` photos that cannot be used.
        workers: number of threads.
        progress: report on stderr.

    Raises:
        UserError: for a photo that cannot be used, under ``stop``.
    """
    shown = tracked(photos, "photo", progress)
    with closing(in_order(partial(_examine, into=into), shown, workers, ahead=workers + 1)) as results:
        for photo, result in results:
            if isinstance(result, Offer):
                into.add(result)
            elif on_error == "stop":
                raise refusal([(photo.name, result)], len(photos))
            else:
                into.skipped.append((photo.name, result))


def read_photos(store: Store) -> Iterator[Seen]:
    """Yield the photos of a database.

    Raises:
        UserError: if a line is damaged.
    """
    none = (0,) * len(VARIANTS)
    for number, record in enumerate(store.sources(), start=1):
        digest = record.get("sha256")
        examined, usable = (tuple(record.get(name) or none) for name in ("examined", "usable"))
        if not isinstance(digest, str) or not SHA256.fullmatch(digest) or not len(examined) == len(usable) == len(none):
            raise UserError(f"{store.path / SOURCES}, line {number}: damaged; build the database again")
        yield Seen(str(record.get("name")), record.get("width", 0), record.get("height", 0), digest, examined, usable)


def _examine(photo: Photo, into: Collection) -> Offer | str:
    try:
        image = photo.read()
    except PhotoError as error:
        return str(error)
    height, width = image.shape[:2]
    definition = into.definition
    if min(height, width) < definition.kept_side:
        around = "" if definition.margin == 0 else f" and the {definition.margin} around it that its features depend on"
        return f"{width}x{height}, smaller than a patch of {definition.patch_side} pixels{around}"
    seen = Seen(photo.name, width, height, pixels_sha256(image), (0,) * len(VARIANTS), (0,) * len(VARIANTS))
    if into.has(seen.sha256):
        return Offer(seen, [])
    examined, usable = [0] * len(VARIANTS), [0] * len(VARIANTS)
    variants = []
    rgb = np.ascontiguousarray(image[..., ::-1])
    for variant, copy in variant_images(rgb, into.settings, seen.sha256):
        key = (into.settings.seed, int(seen.sha256[:16], 16), variant)
        most = into.reservoir.highest_rank + 1
        places = find_places(copy, definition.patch_side, into.settings.min_contrast, key, most, definition.margin)
        examined[variant], usable[variant] = places.examined, places.usable
        variants.append((variant, copy, places))
    return Offer(seen._replace(examined=tuple(examined), usable=tuple(usable)), variants)


def open_collection(definition: Definition, settings: Settings, max_patches: int, scratch: Path) -> Collection:
    """Return an empty collection; the caller must close its reservoir."""
    shape = (definition.kept_side, definition.kept_side, definition.channels)
    return Collection(definition, settings, Reservoir(max_patches, shape, scratch))
