"""Open a patch database: memory-mapped arrays, described by a manifest.

``NAME.patchdb/`` holds ``manifest.json``, ``sources.jsonl`` (a line for each photo) and the arrays of ``ARRAYS`` as
plain ``.npy`` files, a row for each patch. Its folder ``index/`` is a cache and not part of the database.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.errors import OptionError, UserError, file_errors
from gramgan_plugin.patchdb.database_manifest import MANIFEST, SOURCES, Definition, read_manifest
from gramgan_plugin.utils.io import expanded, file_sha256, read_lines

VARIANTS = ("original", "down", "affine")  # the photo itself, bicubic x1/2 of it, a slightly warped copy of it


@dataclass(frozen=True, eq=False)
class Store:
    """An open database, memory-mapped, read-only. Pickling and copying store the path and open it again.

    Attributes:
        path: its folder.
        manifest: content of ``manifest.json``.
        grams: (N, D) float32: ``gram_vectors`` of ``patches / 255``.
        patches: (N, s, s, C) uint8, each with its definition's margin; three channels are RGB.
        origins: (N, 4) int32: the photo's number (its line in ``sources.jsonl``, from 0), the patch's upper left pixel
            (y, x) in the variant, the variant's place in ``VARIANTS``. Rows are in the order of photo, variant, y, x.
        ranks: (N,) int32: place among the patches of its photo and variant, in their random order.
    """

    path: Path
    manifest: Mapping[str, Any]
    grams: NDArray[np.float32]
    patches: NDArray[np.uint8]
    origins: NDArray[np.int32]
    ranks: NDArray[np.int32]

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that differ between databases with other patches or another Gram definition."""
        return str(self.manifest["fingerprint"])

    @property
    def definition(self) -> Definition:
        """What a patch is and how its Gram vector is computed."""
        return Definition.of(self.manifest)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels, or in pixels of the feature map."""
        return int(self.manifest["patch_size"])

    @property
    def count(self) -> int:
        """Number N of patches."""
        return int(self.manifest["count"])

    def inner(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the patches (..., p, p, C) of rows (...), without their margins."""
        return self.definition.inner(np.asarray(self.patches.take(rows, axis=0)))

    def sources(self) -> Iterator[dict[str, Any]]:
        """Yield the photos in the order of their numbers: ``name``, ``width``, ``height``, ``sha256`` (of the pixels).

        Raises:
            UserError: if the file is damaged.
        """
        for _, record in read_lines(self.path / SOURCES):
            yield record

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path,)


def open_store(path: Path, verify: bool = False) -> Store:
    """Open a database.

    Existence, sizes and shapes are always checked, the content by SHA-256 if asked. Nothing is unpickled.

    Args:
        path: its folder.
        verify: read all files and compare them with the manifest.

    Raises:
        UserError: if it is missing, damaged, or written by a newer version; one line that begins with the path.
    """
    path = expanded(path)
    manifest = read_manifest(path)
    arrays = {name: _open_array(path / name, facts) for name, facts in manifest["arrays"].items()}
    _check_size(path / SOURCES, manifest["sources"]["bytes"])
    store = Store(path, manifest, *(arrays[f"{name}.npy"] for name in ("grams", "patches", "origins", "ranks")))
    if verify:
        _verify(store)
    return store


def check_fits(
    store: Store,
    *,
    patch_size: int,
    channels: int,
    normalize: bool,
    center: bool,
    layer: str | None = None,
    weights: str | None = None,
) -> None:
    """Refuse a database whose Gram vectors do not fit a loss.

    Args:
        store: the database.
        patch_size: the loss's option.
        channels: channels of the loss's images.
        normalize: the loss's option.
        center: the loss's option.
        layer: layer of the loss's features; None for Gram matrices of pixels.
        weights: SHA-256 of the features' weights; None if unknown.

    Raises:
        OptionError: with the loss's option, both values and what to do in the message.
    """
    has = store.definition
    if channels != has.channels:
        raise OptionError(
            f"gram_patch_opt.database: the images have {channels} channels, the patches of {store.path} "
            f"{has.channels}; build a database of such images"
        )
    own = None if has.features is None else has.features.layer
    wants = {"features": (layer, own), "patch_size": (patch_size, has.patch_size)}
    wants |= {"normalize": (normalize, has.normalize), "center": (center, has.center)}
    for name, values in wants.items():
        if values[0] != values[1]:
            wanted, found = (_as_option(name, value) for value in values)
            raise OptionError(
                f"gram_patch_opt.{name}: {wanted}, but {store.path} was built with {found}; "
                f"set `{name}: {found}`, or take a database that was built {_built(name, values[0])}"
            )
    if has.features is not None and weights is not None and weights != has.features.weights:
        raise OptionError(
            f"gram_patch_opt.features: {store.path} was built with other VGG19 weights than the loss has; set "
            "`vgg_weights` to those, or build it again with these"
        )


def database_facts(path: Path) -> dict[str, Any]:
    """Return a run's record of its database, without the path, since a copy elsewhere is the same.

    Args:
        path: the database's folder.

    Returns:
        ``fingerprint``, ``count``, ``patch_size``.

    Raises:
        UserError: see ``open_store``.
    """
    store = open_store(path)
    return {"fingerprint": store.fingerprint, "count": store.count, "patch_size": store.patch_size}


def _as_option(name: str, value: Any) -> str:
    if name == "features" and value is not None:
        return f"{{layer: {value}}}"
    return json.dumps(value)


def _built(option: str, value: Any) -> str:
    """Return the argument of ``basicsr patchdb build`` for a loss option."""
    if option == "center":
        return "with --center" if value else "without --center"
    if option == "normalize":
        return "without --no-normalize" if value else "with --no-normalize"
    if option == "features":
        return "without --features" if value is None else f"with --features {value}"
    return f"with --patch-size {value}"


def _open_array(path: Path, facts: Mapping[str, Any]) -> Any:
    """Map an array into memory; its header and its length must match the manifest."""
    dtype, shape = np.dtype(facts["dtype"]), tuple(facts["shape"])
    _check_is_file(path)
    with file_errors(path):
        try:
            # Not np.load, which also accepts archives and pickles. This refuses arrays of objects.
            array = np.lib.format.open_memmap(path, mode="r")
        except OSError:
            raise
        except Exception as error:  # of many types: a damaged header is parsed
            raise _damaged(path, "is not a complete array") from error
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise _damaged(path, f"{array.dtype} of {array.shape}, where {MANIFEST} says {dtype} of {shape}")
    _check_size(path, array.offset + array.nbytes)
    return array


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise _damaged(path, "is missing")


def _check_size(path: Path, expected: int) -> None:
    _check_is_file(path)
    size = path.stat().st_size
    if size != expected:
        raise _damaged(path, f"{size} bytes, should be {expected}")


def _verify(store: Store) -> None:
    hashes = {name: facts["sha256"] for name, facts in store.manifest["arrays"].items()}
    for name, expected in {**hashes, SOURCES: store.manifest["sources"]["sha256"]}.items():
        path = store.path / name
        with file_errors(path):
            if file_sha256(path) != expected:
                raise _damaged(path, "its SHA-256 is not that of the manifest")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); copy the database again, or build it again with --overwrite")
