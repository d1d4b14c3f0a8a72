"""Build a database from photos, add photos to one, merge several."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.making.describing import GramDescription, description_of, description_of_features
from gramgan_plugin.patchdb.making.patch_collection import Collection, collect, open_collection
from gramgan_plugin.patchdb.making.placing import DATABASE, SCRATCH, placed
from gramgan_plugin.patchdb.making.settings import MAX_PATCHES, MOST_PATCHES, Settings, check_sizes
from gramgan_plugin.patchdb.making.source_photos import Reading, find_photos
from gramgan_plugin.patchdb.store import VARIANTS, open_store
from gramgan_plugin.patchdb.writing import StoreWriter
from gramgan_plugin.utils.progress import tracked_of
from gramgan_plugin.utils.staging import check_free, put_back
from gramgan_plugin.utils.threads import threads_for


@dataclass(frozen=True)
class Report:
    """The result of a build, update or merge.

    Attributes:
        path: the database.
        manifest: its manifest.
        photos: number of photos in it.
        new: number of photos that were not in it before.
        repeated: number of repeated photos, in the sources or in the database.
        skipped: name and reason of photos that could not be used.
    """

    path: Path
    manifest: dict[str, Any]
    photos: int
    new: int
    repeated: int
    skipped: list[tuple[str, str]] = field(default_factory=list)


def build(
    sources: Sequence[Path],
    out: Path,
    *,
    max_patches: int = MAX_PATCHES,
    definition: Definition | None = None,
    features: str | None = None,
    vgg_weights: str | None = None,
    settings: Settings | None = None,
    reading: Reading | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Report:
    """Build a database.

    Each photo and variant gives the same number of patches, at random places; if one has fewer, the others give more.
    Flat patches are left out, and of similar patches only one is kept. The same photos, settings and ``max_patches``
    give the same arrays, in any order of the photos. The database appears at ``out`` only when it is complete.

    Args:
        sources: LMDBs and folders of photos.
        out: folder to write, usually ``NAME.patchdb``.
        max_patches: maximum number of patches, up to 10 million.
        definition: what a patch is; None for the loss's defaults (4 pixels).
        features: a VGG19 layer such as ``conv1_2``, for Gram matrices of its map; ``patch_size`` then counts pixels of
            the map. None for Gram matrices of pixels.
        vgg_weights: VGG19's weights, as in `VGGPerceptualLoss`; ignored without ``features``.
        settings: how patches are chosen; None for the defaults.
        reading: which photos are read, and how; None for the defaults.
        overwrite: replace a database at ``out``.
        progress: report on stderr.

    Raises:
        UserError: for unusable options, sources or photos, an existing ``out``, a full disk.
        Preempted: after SIGTERM.
    """
    definition, settings = definition or Definition(patch_size=4), settings or Settings()
    reading = reading or Reading()
    threads = threads_for(reading.workers)
    settings.check()
    describes = GramDescription(definition)
    if features is not None:
        describes = description_of_features(definition, features, vgg_weights)
    definition = describes.definition
    check_sizes(definition, max_patches)
    put_back(out, DATABASE)
    check_free(out, DATABASE, overwrite)
    photos = find_photos(sources, reading.recursive)
    with placed(out, overwrite) as folder, _collection(definition, settings, max_patches, folder) as collection:
        collect(collection, photos, on_error=reading.on_error, workers=threads, progress=progress)
        manifest = _write(collection, describes, folder, max_patches, progress)
    return _report(out, manifest, collection, len(collection.photos))


def update(
    path: Path,
    sources: Sequence[Path],
    *,
    max_patches: int | None = None,
    vgg_weights: str | None = None,
    reading: Reading | None = None,
    progress: bool = True,
) -> Report:
    """Add photos to a database with its own settings, and skip photos that it has already.

    With the same ``max_patches``, the result has the same arrays as a build from all photos at once. The old version
    stays at ``path`` until the new one is complete.

    Args:
        path: the database.
        sources: LMDBs and folders of photos.
        max_patches: maximum number of patches; None for the same as before. With a larger number, photos in the
            database give no more patches than before.
        vgg_weights: the weights that a database of features was built with; see ``build``.
        reading: see ``build``.
        progress: see ``build``.

    Raises:
        UserError: see ``build``; or if the database is damaged.
        Preempted: after SIGTERM.
    """
    reading = reading or Reading()
    threads = threads_for(reading.workers)
    put_back(path, DATABASE)
    store = open_store(path, verify=True)
    check_free(path, DATABASE, overwrite=True)
    settings, definition = Settings.of(store), store.definition
    describes = description_of(definition, vgg_weights, path)
    limit = int(store.manifest["options"].get("max_patches", store.count)) if max_patches is None else max_patches
    check_sizes(definition, limit)
    photos = find_photos(sources, reading.recursive)
    with placed(path, overwrite=True) as folder, _collection(definition, settings, limit, folder) as collection:
        collection.add_store(store)
        before = len(collection.photos)
        collect(collection, photos, on_error=reading.on_error, workers=threads, progress=progress)
        manifest = _write(collection, describes, folder, limit, progress)
        del store  # some systems cannot move a folder whose files are mapped
    return _report(path, manifest, collection, len(collection.photos) - before)


def merge(
    paths: Sequence[Path],
    out: Path,
    *,
    max_patches: int | None = None,
    vgg_weights: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Report:
    """Merge databases into a new one.

    Similar patches, and photos that are in several databases, count once. Of different settings the most permissive is
    recorded; the seed is the first database's.

    Args:
        paths: at least two databases with the same definition.
        out: folder to write.
        max_patches: maximum number of patches; None for all.
        vgg_weights: the weights that databases of features were built with; see ``build``.
        overwrite: replace a database at ``out``.
        progress: report on stderr.

    Raises:
        UserError: if a database cannot be read, definitions differ, ``out`` exists, or the disk is full.
        Preempted: after SIGTERM.
    """
    if len(paths) < 2:
        raise UserError("merge: name at least two databases")
    put_back(out, DATABASE)
    check_free(out, DATABASE, overwrite)
    stores = [open_store(path, verify=True) for path in paths]
    first = stores[0].definition
    for store in stores[1:]:
        difference = store.definition.difference(first)
        if difference is not None:
            raise UserError(
                f"{store.path}: has {difference} as {stores[0].path}; only databases with the same definition can be "
                "merged: build one of them again"
            )
    describes = description_of(first, vgg_weights, paths[0])
    settings = _common([Settings.of(store) for store in stores])
    limit = min(sum(store.count for store in stores), MOST_PATCHES) if max_patches is None else max_patches
    check_sizes(first, limit)
    with placed(out, overwrite) as folder, _collection(first, settings, limit, folder) as collection:
        for store in stores:
            collection.add_store(store)
        manifest = _write(collection, describes, folder, limit, progress)
    return _report(out, manifest, collection, len(collection.photos))


@contextmanager
def _collection(definition: Definition, settings: Settings, max_patches: int, folder: Path) -> Iterator[Collection]:
    collection = open_collection(definition, settings, max_patches, folder / SCRATCH)
    try:
        yield collection
    finally:
        collection.reservoir.close()


def _write(
    collection: Collection, describes: GramDescription, folder: Path, max_patches: int, progress: bool
) -> dict[str, Any]:
    """Write the chosen patches; photos are numbered by content, so their names and order do not matter."""
    reservoir, settings = collection.reservoir, collection.settings
    reservoir.settle()
    if reservoir.count == 0:
        usable = f"no patch of {len(collection.photos)} photos has a contrast of {settings.min_contrast}"
        raise UserError(f"{usable}; lower --min-contrast" if collection.photos else _none_usable(collection))
    order = sorted(range(len(collection.photos)), key=lambda place: collection.photos[place].sha256)
    numbers = np.empty(len(order), np.int32)
    numbers[order] = np.arange(len(order), dtype=np.int32)
    shares = np.zeros(len(VARIANTS), np.int64)
    with StoreWriter(folder, collection.definition, reservoir.count) as writer:
        blocks = reservoir.rows(numbers, describes.at_once)
        many = -(-reservoir.count // describes.at_once)
        # Gram vectors of pixels take hardly any time; those of features do.
        for rows in tracked_of(blocks, many, "block", progress and describes.layer is not None):
            writer.add(rows.patches, rows.origins, rows.ranks, describes.of_patches(rows.patches))
            shares += np.bincount(rows.origins[:, 3], minlength=len(VARIANTS))
        for place in order:
            writer.add_source(collection.photos[place]._asdict())
        counts = {
            "photos": len(order),
            "examined": sum(sum(seen.examined) for seen in collection.photos),
            "usable": sum(sum(seen.usable) for seen in collection.photos),
            "near_duplicates": collection.near_duplicates(),
            "by_variant": {name: int(shares[VARIANTS.index(name)]) for name in settings.variants},
        }
        return writer.finish(settings.variants, {**settings.as_data(), "max_patches": max_patches}, counts)


def _report(out: Path, manifest: dict[str, Any], collection: Collection, new: int) -> Report:
    return Report(out, manifest, len(collection.photos), new, collection.repeated, sorted(collection.skipped))


def _none_usable(collection: Collection) -> str:
    name, reason = collection.skipped[0]
    return f"none of the {len(collection.skipped)} photos can be used, first: {name}: {reason}"


def _common(settings: Sequence[Settings]) -> Settings:
    names = {name for each in settings for name in each.variants}
    return replace(
        settings[0],
        variants=tuple(name for name in VARIANTS if name in names),
        min_contrast=min(each.min_contrast for each in settings),
        thin=min(each.thin for each in settings),
    )
