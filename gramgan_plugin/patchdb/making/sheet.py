"""Draw a contact sheet: some patches of a database, enlarged and sorted, to show its variety."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.images import encode_png
from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.moments import LEVELS, contrasts, moments
from gramgan_plugin.patchdb.store import Store
from gramgan_plugin.utils.io import replace_file
from gramgan_plugin.utils.pictures import write_line, zoomed

Picture = NDArray[np.uint8]  # (H, W, 3) BGR

COLUMNS, ROWS = 48, 32
CELL = 24  # minimum side of an enlarged patch in pixels
GAP = 2
MARGIN, HEAD = 64, 30
GRAY = 12  # a mean colour whose channels differ by fewer levels has no hue
ROWS_OF_ONE_LABEL = 4


def contact_sheet(store: Store, columns: int = COLUMNS, rows: int = ROWS) -> Picture:
    """Draw patches from the whole database, sorted by contrast from row to row and by hue within a row.

    Gray patches come first in a row, from dark to light. Every fourth row is labelled with its contrast.

    Args:
        store: the database; if it is smaller than the sheet, all patches are shown.
        columns: patches in a row.
        rows: rows of patches.
    """
    # Rows are sorted by photo, so that a fixed step reaches all photos.
    chosen = np.unique(np.linspace(0, store.count - 1, columns * rows).round().astype(np.int64))
    patches = store.inner(chosen)
    contrast = patch_contrasts(patches)
    order = np.argsort(contrast, kind="stable")
    side = store.definition.patch_side
    zoom = max(1, CELL // side)
    lines, labels = [], []
    for row, part in enumerate(np.array_split(order, -(-len(order) // columns))):
        lines.append(_line(patches[sorted(part, key=lambda place: _hue_order(patches[place]))], columns, zoom))
        labels.append(f"{np.median(contrast[part]):.3f}" if row % ROWS_OF_ONE_LABEL == 0 else "")
    sheet = np.full((HEAD + sum(len(line) for line in lines), MARGIN + lines[0].shape[1], 3), LEVELS, np.uint8)
    top = HEAD
    for line, label in zip(lines, labels, strict=True):
        sheet[top : top + len(line), MARGIN:] = line
        write_line(sheet, label, 6, top + len(line) - 8, 0.45)
        top += len(line)
    write_line(sheet, f"contrast | {len(chosen)} of {store.count} patches, {side}x{side}", 6, 20, 0.45)
    return sheet


def patch_contrasts(patches: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute ``moments.contrasts`` of patches: (N, p, p, C) -> (N,)."""
    found = moments(patches)
    own = np.cumsum([0, *range(patches.shape[3], 1, -1)])  # places of the diagonal in the upper triangle
    return contrasts(found.pixels, found.sums, found.products[:, own])


def enlarged(patch: NDArray[np.uint8], zoom: int) -> Picture:
    """Enlarge by repeating pixels: (h, w, C) RGB or gray -> (h * zoom, w * zoom, 3) BGR."""
    colours = patch[..., ::-1] if patch.shape[2] == 3 else np.repeat(patch[..., :1], 3, axis=2)
    return zoomed(colours, zoom)


def save_picture(picture: Picture, path: Path) -> None:
    """Write a PNG.

    Raises:
        UserError: if the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: pictures are written as PNG; give a name that ends in .png")
    replace_file(path, encode_png(picture, 6))


def _line(patches: NDArray[np.uint8], columns: int, zoom: int) -> Picture:
    side = patches.shape[1] * zoom + GAP
    line = np.full((side, columns * side, 3), LEVELS, np.uint8)
    for place, patch in enumerate(patches):
        line[: side - GAP, place * side : (place + 1) * side - GAP] = enlarged(patch, zoom)
    return line


def _hue_order(patch: NDArray[np.uint8]) -> tuple[Any, ...]:
    mean = patch.reshape(-1, patch.shape[2]).mean(axis=0)
    if len(mean) != 3 or np.ptp(mean) < GRAY:
        return (0, float(mean.mean()))
    return (1, colorsys.rgb_to_hsv(*(mean / LEVELS))[0])
