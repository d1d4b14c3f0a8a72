"""Write and check ``manifest.json`` of a patch database."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import SHA256, is_count, read_record
from gramgan_plugin.utils.staging import moved_aside

MANIFEST = "manifest.json"
SOURCES = "sources.jsonl"
FORMAT = 1
# File -> type, and the shape after the number of patches as names of sizes.
ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "grams.npy": ("float32", ("dimensions",)),
    "patches.npy": ("uint8", ("kept_side", "kept_side", "channels")),
    "origins.npy": ("int32", ("origin",)),
    "ranks.npy": ("int32", ()),
}
ORIGIN = 4  # numbers that describe where a patch comes from


@dataclass(frozen=True)
class Features:
    """The features that Gram matrices are computed from: the map of a VGG19 layer.

    Attributes:
        layer: ``conv1_2``, or ``relu1_2`` for the map after the activation.
        weights: SHA-256 of the weights up to the layer.
        channels: channels of the map.
        reduction: image pixels for one pixel of the map, in each direction.
        margin: image pixels around a patch that its features depend on, rounded up to a multiple of ``reduction``.
    """

    layer: str
    weights: str
    channels: int
    reduction: int = 1
    margin: int = 0


@dataclass(frozen=True)
class Definition:
    """What a patch is and how its Gram vector is computed.

    Attributes:
        patch_size: side of a patch in pixels, or in pixels of the feature map.
        channels: channels of the images.
        normalize: whether Gram matrices are divided by the number of pixels.
        center: whether each patch's mean is subtracted first.
        features: the features for the Gram matrices; None for pixels.

    Example:
        >>> Definition(4).dimensions
        6
        >>> conv1_2 = Definition(4, features=Features("conv1_2", "0" * 64, channels=64, margin=2))
        >>> conv1_2.dimensions, conv1_2.patch_side, conv1_2.kept_side
        (2080, 4, 8)
    """

    patch_size: int
    channels: int = 3
    normalize: bool = True
    center: bool = False
    features: Features | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Definition":
        """Return the definition in a manifest."""
        gram, features = manifest["gram"], manifest["features"]
        return cls(
            manifest["patch_size"],
            manifest["channels"],
            gram["normalize"],
            gram["center"],
            None if features is None else Features(**features),
        )

    @property
    def dimensions(self) -> int:
        """The length D of a Gram vector."""
        channels = self.channels if self.features is None else self.features.channels
        return channels * (channels + 1) // 2

    @property
    def patch_side(self) -> int:
        """Side p of a patch in image pixels."""
        return self.patch_size * (1 if self.features is None else self.features.reduction)

    @property
    def margin(self) -> int:
        """Pixels around a patch that are stored with it."""
        return 0 if self.features is None else self.features.margin

    @property
    def kept_side(self) -> int:
        """Side s of a stored patch with its margin."""
        return self.patch_side + 2 * self.margin

    def inner(self, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view without the margins: (..., s, s, C) -> (..., p, p, C)."""
        keep = slice(self.margin, self.margin + self.patch_side)
        return patches[..., keep, keep, :]

    def as_data(self) -> dict[str, Any]:
        """Return the entries for a manifest."""
        return {
            "patch_size": self.patch_size,
            "channels": self.channels,
            "gram": {"normalize": self.normalize, "center": self.center},
            "features": None if self.features is None else asdict(self.features),
        }

    def difference(self, other: "Definition") -> str | None:
        """Return the first attribute that differs, with both values in words; None if the definitions are equal."""
        for name in (each.name for each in fields(self)):
            own, others = getattr(self, name), getattr(other, name)
            if own == others:
                continue
            if name != "features":
                return f"{name} {own}, not {others}"
            kinds = ["pixels" if each is None else each.layer for each in (own, others)]
            if kinds[0] == kinds[1]:
                return f"Gram matrices of {kinds[0]} with other VGG19 weights"
            return f"Gram matrices of {kinds[0]}, not of {kinds[1]}"
        return None


def fingerprint(definition: Definition, hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 over the definition and the arrays' hashes, without paths, names or dates."""
    return _digest({**definition.as_data(), "arrays": {name: hashes[name] for name in sorted(ARRAYS)}})


def array_shapes(definition: Definition, count: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array."""
    sizes = {
        "dimensions": definition.dimensions,
        "kept_side": definition.kept_side,
        "channels": definition.channels,
        "origin": ORIGIN,
    }
    return {name: (count, *(sizes[size] for size in rest)) for name, (_, rest) in ARRAYS.items()}


def manifest_bytes(record: Mapping[str, Any]) -> bytes:
    """Return the file's content: the record and its own hash."""
    return (json.dumps({**record, "record": _digest(record)}, indent=2, allow_nan=False) + "\n").encode("ascii")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a database's manifest; all entries that are used later are checked.

    Raises:
        UserError: if it is missing, damaged, or written by a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder}: {_what_is_there(folder)}")
    record = read_record(path, FORMAT, _damaged, "update gramgan-plugin, or build the database again with this one")
    _check(path, record)
    return record


def _check(path: Path, record: dict[str, Any]) -> None:
    if record.pop("record", None) != _digest(record):
        raise _damaged(path, "was changed since it was written")
    try:
        definition = Definition.of(record)
        arrays = record["arrays"]
        hashes = {name: arrays[name]["sha256"] for name in ARRAYS}
        shapes = array_shapes(definition, record["count"])
        fits = (
            arrays.keys() == ARRAYS.keys()
            and record["count"] >= 1
            and all(SHA256.fullmatch(text) for text in (*hashes.values(), record["sources"]["sha256"]))
            and is_count(record["sources"]["bytes"])
            and all(tuple(arrays[name]["shape"]) == shape for name, shape in shapes.items())
            and all(arrays[name]["dtype"] == dtype for name, (dtype, _) in ARRAYS.items())
            and record["fingerprint"] == fingerprint(definition, hashes)
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise _damaged(path, "its entries do not fit together")


def _what_is_there(folder: Path) -> str:
    if folder.is_dir():
        return f"no patch database ({MANIFEST} is missing); build it with `basicsr patchdb build --out {folder.name}`"
    if folder.exists():
        return "a file, but a patch database is a folder"
    aside = moved_aside(folder)
    if aside.exists():
        return f"no such patch database; a killed process has left it as {aside.name}: rename it back"
    return f"no such patch database; build it with `basicsr patchdb build --out {folder.name}`"


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode("ascii")).hexdigest()


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); copy the database again, or build it again with --overwrite")
