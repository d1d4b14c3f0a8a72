"""Compare models on one image: a labelled picture of crops, and a page with a slider."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.pages import render_page
from gramgan_plugin.utils.pictures import Image, detailed_window, labelled

TEMPLATE = "comparison_template.html"


def zoomed_crops(images: Mapping[str, Image], crop: int = 96, zoom: int = 3, count: int = 3) -> Image:
    """Draw crops of several versions of an image, a version a column, under its label.

    Args:
        images: label -> (H, W, 3) uint8 BGR, all of one size. The crops are where the last one has the most detail.
        crop: side of a crop in pixels; smaller if the image is.
        zoom: whole-number enlargement by repeating pixels.
        count: rows.

    Raises:
        ValueError: if ``images`` is empty or their sizes differ.
    """
    remaining = list(images.values())[-1].copy()
    rows = []
    for _ in range(count):
        rows_of, columns_of = detailed_window(remaining, crop)
        rows.append(labelled({label: image[rows_of, columns_of] for label, image in images.items()}, zoom=zoom))
        remaining[rows_of, columns_of] = 0
        if min(remaining.shape[:2]) <= crop:
            break
    gap = np.full((8, rows[0].shape[1], 3), 255, np.uint8)
    parts = [part for row in rows for part in (row, gap)]
    return np.concatenate(parts[:-1])


def write_comparison(
    images: Mapping[str, Image], out: Path, title: str, columns: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> tuple[Path, Path]:
    """Write ``OUT.png`` (crops of all images) and ``OUT.html``, a page without other files.

    Args:
        images: label -> (H, W, 3) uint8 BGR, all of one size.
        out: the files' path; a suffix .png or .html is removed.
        title: of the page; like the labels it may come from file names, and is escaped.
        columns: names of a table's columns.
        rows: its rows.

    Returns:
        The two files.

    Raises:
        UserError: if they cannot be written.
        ValueError: if ``images`` is empty or their sizes differ.
    """
    stem = without_suffix(out)
    crops = zoomed_crops(images)
    page = render_page(
        "gramgan_plugin.evaluation",
        TEMPLATE,
        title=title,
        labels=list(images),
        images=[_data_url(image) for image in images.values()],
        crops=_data_url(crops),
        width=next(iter(images.values())).shape[1],
        columns=columns,
        rows=rows,
    )
    picture, html = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.html")
    replace_file(picture, _png(crops))
    replace_file(html, page)
    return picture, html


def without_suffix(out: Path) -> Path:
    """Return the path of both files without .png or .html.

    Raises:
        UserError: if it is a folder.
    """
    if out.name in ("", "..") or out.is_dir():
        raise UserError(f"{out}: a folder; give the name of the files, without suffix")
    return out.with_suffix("") if out.suffix.lower() in (".png", ".html") else out


def _png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def _data_url(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"
