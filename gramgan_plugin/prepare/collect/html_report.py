"""Write ``report.html``: pictures of what was kept and dropped, and why."""

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gramgan_plugin.prepare.collect.criteria import REASONS, Criteria
from gramgan_plugin.prepare.collect.measuring import thumbnail_file
from gramgan_plugin.prepare.collect.records import COLLECTED, Result
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.pages import render_page
from gramgan_plugin.utils.text import printable

REPORT = "report.html"
LONGEST = 300  # characters of an untrusted text

TEMPLATE = "collected_template.html"  # allows no script and no request


def write_report(folder: Path, results: Sequence[Result], criteria: Criteria, most: int) -> None:
    """Write the report.

    Args:
        folder: the collection's folder, with its thumbnails.
        results: the results of all photos.
        criteria: the limits that were applied.
        most: maximum number of photos for each result; for limits, the photos nearest to the limit.

    Raises:
        UserError: if it cannot be written.
    """
    counts = Counter(result.verdict.reason or "kept" for result in results)
    limits = _limits(criteria)
    sections = [
        {
            "id": reason,
            "title": f"dropped: {REASONS[reason]}" if reason in REASONS else "kept",
            "count": counts[reason],
            "limit": limits.get(reason, ""),
            "order": ", those nearest to the limit" if reason in _NEAREST else "",
            "results": [_shown(folder, result, results) for result in _choice(results, reason, most)],
        }
        for reason in ("kept", *REASONS)
        if counts[reason]
    ]
    page = render_page(
        "gramgan_plugin.prepare.collect",
        TEMPLATE,
        kept=counts["kept"],
        seen=len(results),
        sections=sections,
        collected=COLLECTED,
    )
    replace_file(folder / REPORT, page)


# Distance of a dropped photo from the limit; the nearest comes first.
_NEAREST: dict[str, Callable[[Any], float]] = {
    "small": lambda photo: -min(photo.width, photo.height),
    "blurred": lambda photo: -photo.sharpness,
    "upscaled": lambda photo: photo.spectral_drop,
    "compressed": lambda photo: photo.blockiness,
}


def _limits(criteria: Criteria) -> dict[str, str]:
    def limit_text(text: str, value: float | None) -> str:
        return "off" if value is None else f"{text} {value:g}"

    return {
        "small": limit_text("shorter side below", criteria.min_side),
        "blurred": limit_text("sharpness below", criteria.min_sharpness),
        "upscaled": limit_text("spectral drop above", criteria.max_spectral_drop),
        "compressed": f"{limit_text('JPEG quality below', criteria.min_jpeg_quality)}; "
        f"{limit_text('blockiness above', criteria.max_blockiness)}",
        "similar": limit_text("bits that differ: at most", criteria.hash_distance),
    }


def _choice(results: Sequence[Result], reason: str, most: int) -> list[Result]:
    """Return the photos to show for a result: those nearest to the limit, or an evenly spread selection."""
    of_kind = [result for result in results if (result.verdict.reason or "kept") == reason]
    if reason in _NEAREST:
        return sorted(of_kind, key=lambda result: _NEAREST[reason](result.photo))[:most]
    shown = min(most, len(of_kind))
    return [of_kind[number * len(of_kind) // shown] for number in range(shown)]


def _shown(folder: Path, result: Result, results: Sequence[Result]) -> dict[str, Any]:
    photo, twin = result.photo, result.verdict.twin
    pictured = [result] if twin is None else [result, results[twin]]
    facts = ""
    if photo is not None and photo.unreadable is None:
        quality = "" if photo.jpeg_quality is None else f", quality {photo.jpeg_quality}"
        facts = (
            f"{photo.width}x{photo.height} {photo.format}{quality}, sharpness {photo.sharpness:.2f}, "
            f"drop {photo.spectral_drop:.2f}, blockiness {photo.blockiness:.2f}"
            + (f"; rewritten: {photo.rewrite}" if photo.rewrite and result.kept_as else "")
        )
    return {
        "name": _text(result.name),
        "link": f"photos/{quote(result.kept_as)}" if result.kept_as else "",
        "detail": _text(result.verdict.detail),
        "facts": facts,
        "source": _text(result.source),
        "licence": _text(result.licence),
        "images": list(_images(folder, pictured)),
    }


def _images(folder: Path, pictured: Sequence[Result]) -> Iterator[str]:
    for result in pictured:
        if result.photo is not None and result.photo.unreadable is None:
            path = thumbnail_file(folder, result.photo.sha256)
            if path.is_file():
                yield "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _text(text: str) -> str:
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
