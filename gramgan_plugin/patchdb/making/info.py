"""Describe a database in numbers."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from gramgan_plugin.patchdb.making.sheet import patch_contrasts
from gramgan_plugin.patchdb.search import index_facts
from gramgan_plugin.patchdb.store import VARIANTS, Store

SAMPLE = 100_000  # patches for the contrast quantiles
QUANTILES = (0, 10, 50, 90, 100)


def describe(store: Store) -> dict[str, Any]:
    """Return the facts about a database, in JSON types.

    Returns:
        ``path``, ``fingerprint``, ``made_by``, ``count``, ``patch_size``, ``channels``, ``gram``, ``features``,
        ``bytes`` (without indexes), ``variants`` (number of patches of each), ``photos`` (``count``, ``used``, and the
        ``min``, ``median`` and ``max`` of patches of a used one), ``contrast`` (quantiles), ``options`` and ``counts``
        of the build, ``indexes`` (see ``index_facts``).
    """
    manifest = store.manifest
    photos = Counter[int]()
    variants = np.zeros(len(VARIANTS), np.int64)
    for first in range(0, store.count, SAMPLE):
        origins = np.asarray(store.origins[first : first + SAMPLE])
        photos.update(dict(zip(*(part.tolist() for part in np.unique(origins[:, 0], return_counts=True)), strict=True)))
        variants += np.bincount(np.clip(origins[:, 3], 0, len(VARIANTS) - 1), minlength=len(VARIANTS))
    each = np.array(list(photos.values()))
    chosen = np.unique(np.linspace(0, store.count - 1, min(SAMPLE, store.count)).round().astype(np.int64))
    levels = np.percentile(patch_contrasts(store.inner(chosen)), QUANTILES)
    return {
        "path": str(store.path),
        "fingerprint": store.fingerprint,
        "made_by": manifest["made_by"],
        "count": store.count,
        "patch_size": store.patch_size,
        **{name: manifest[name] for name in ("channels", "gram", "features")},
        "bytes": sum(path.stat().st_size for path in store.path.iterdir() if path.is_file()),
        "variants": {name: int(variants[number]) for number, name in enumerate(VARIANTS) if variants[number]},
        "photos": {
            "count": sum(1 for _ in store.sources()),
            "used": len(each),
            "min": int(each.min()),
            "median": float(np.median(each)),
            "max": int(each.max()),
        },
        "contrast": {str(quantile): round(float(level), 5) for quantile, level in zip(QUANTILES, levels, strict=True)},
        "options": manifest["options"],
        "counts": manifest["counts"],
        "indexes": index_facts(store),
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """Return the facts as text, one line each."""
    gram, photos, counts = facts["gram"], facts["photos"], facts["counts"]
    kind = "centred" if gram["center"] else "not centred"
    norm = "" if gram["normalize"] else ", not divided by the pixels"
    features, side = facts["features"], facts["patch_size"]
    what = "pixels"
    if features is not None:
        side *= features["reduction"]
        what = f"{features['layer']} of VGG19, patches of {facts['patch_size']}x{facts['patch_size']} of its map"
    total = facts["count"]
    shares = ", ".join(f"{name} {100 * number / total:.1f} %" for name, number in facts["variants"].items())
    found = [
        f"{facts['path']}: {total} patches of {side}x{side} pixels, "
        f"{facts['channels']} channels, {facts['bytes'] / 1e6:.1f} MB",
        f"  Gram matrices of {what}, {kind}{norm}",
        f"  of {photos['used']} photos ({photos['count']} examined), {photos['min']} to {photos['max']} patches each, "
        f"half of them {photos['median']:g} or more",
        f"  variants: {shares}",
        "  contrast: " + ", ".join(f"{level:.4f} ({name} %)" for name, level in facts["contrast"].items()),
    ]
    if counts.get("examined"):
        found.append(f"  {left_out(counts)}")
    found.append(f"  fingerprint {facts['fingerprint']}")
    if facts["indexes"]:
        found.append(f"  indexes: {', '.join(map(index_in_words, facts['indexes']))}")
    return found


def left_out(counts: dict[str, Any]) -> str:
    """Return how many patches were left out, and why."""
    examined, usable = counts["examined"], counts["usable"]
    return (
        f"of {examined} patches {examined - usable} are flat ({100 * (examined - usable) / examined:.1f} %), "
        f"{counts['near_duplicates']} were left out as near-duplicates"
    )


def index_in_words(facts: Mapping[str, Any]) -> str:
    """Return an index's kind, and its recall if it was measured."""
    recall = facts.get("recall") or {}
    return facts["kind"] + (f" (finds the nearest of {recall['at_1']:.1%})" if "at_1" in recall else "")
