"""``manifest.json`` of a patch database: what it holds, and whether that is what was written."""

import glob
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.json_record import SHA256, is_count, read_record

MANIFEST = "manifest.json"
SOURCES = "sources.jsonl"
FORMAT = 1
# File -> type, and the shape after the number of patches as names of sizes.
ARRAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "grams.npy": ("float32", ("dimensions",)),
    "patches.npy": ("uint8", ("patch_size", "patch_size", "channels")),
    "origins.npy": ("int32", ("origin",)),
    "ranks.npy": ("int32", ()),
}
ORIGIN = 4  # numbers that say where a patch comes from


@dataclass(frozen=True)
class Definition:
    """What a patch is and how its Gram vector is computed.

    Attributes:
        patch_size: side of a patch in pixels.
        channels: of a patch.
        normalize: whether Gram matrices are divided by the pixels of a patch.
        center: whether each patch's mean is subtracted first.
        features: what else than pixels the Grams are of, as in the loss's option; None for pixels.

    Example:
        >>> Definition(4).dimensions
        6
    """

    patch_size: int
    channels: int = 3
    normalize: bool = True
    center: bool = False
    features: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Definition":
        """What a manifest says."""
        gram = manifest["gram"]
        sizes = manifest["patch_size"], manifest["channels"]
        return cls(*sizes, gram["normalize"], gram["center"], manifest["features"])

    @property
    def dimensions(self) -> int | None:
        """Numbers of a Gram vector; None for features, whose number is not known here."""
        return None if self.features is not None else self.channels * (self.channels + 1) // 2

    def as_options(self) -> dict[str, Any]:
        """By the names of the loss's options."""
        return {
            "patch_size": self.patch_size,
            "channels": self.channels,
            "normalize": self.normalize,
            "center": self.center,
            "features": None if self.features is None else dict(self.features),
        }

    def as_data(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        options = self.as_options()
        gram = {"normalize": options.pop("normalize"), "center": options.pop("center")}
        return {"patch_size": options["patch_size"], "channels": options["channels"], "gram": gram} | {
            "features": options["features"]
        }


def fingerprint(definition: Definition, hashes: Mapping[str, str]) -> str:
    """SHA-256 over the definition and the arrays' hashes: no path, no name, no date."""
    return _digest({**definition.as_data(), "arrays": {name: hashes[name] for name in sorted(ARRAYS)}})


def array_shapes(definition: Definition, count: int, dimensions: int) -> dict[str, tuple[int, ...]]:
    """The shape of each array."""
    sizes = {
        "dimensions": dimensions,
        "patch_size": definition.patch_size,
        "channels": definition.channels,
        "origin": ORIGIN,
    }
    return {name: (count, *(sizes[size] for size in rest)) for name, (_, rest) in ARRAYS.items()}


def manifest_bytes(record: Mapping[str, Any]) -> bytes:
    """The file's content: the record, with a hash of itself."""
    return (json.dumps({**record, "record": _digest(record)}, indent=2, allow_nan=False) + "\n").encode("ascii")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a database, all its entries that are relied on checked.

    Raises:
        UserError: if there is none, it is damaged, or was written by a newer version.
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
        known = definition.dimensions
        dimensions = arrays["grams.npy"]["shape"][1] if known is None else known
        shapes = array_shapes(definition, record["count"], dimensions)
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
        return "a file, where a patch database is a folder"
    aside = sorted(path.name for path in folder.parent.glob(f"{glob.escape(folder.name)}.old-*"))
    if aside:
        return f"no such patch database; a process that was killed has left it as {aside[0]}: rename it back"
    return f"no such patch database; build it with `basicsr patchdb build --out {folder.name}`"


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode("ascii")).hexdigest()


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); copy the database again, or build it again with --overwrite")
