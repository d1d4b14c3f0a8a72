"""Which patches of one image are offered, and in which order: those that are not flat, at random places."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.functional.patches import patch_grid
from gramgan_plugin.patchdb.making.numbers import mixed, rows_mixed, word
from gramgan_plugin.patchdb.moments import contrasts, moments

PATCHES_AT_ONCE = 32768


class Places(NamedTuple):
    """Where an image has patches worth having.

    Attributes:
        examined: number of patches looked at: all of a grid without overlap, whose begin is random.
        usable: number of those that are not flat.
        y: (n,) upper rows of the first ``n`` usable patches in their random order.
        x: (n,) left columns.
    """

    examined: int
    usable: int
    y: NDArray[np.int32]
    x: NDArray[np.int32]


def find_places(
    image: NDArray[np.uint8], patch_size: int, min_contrast: float, key: tuple[int, ...], most: int, margin: int = 0
) -> Places:
    """The patches of an image in the order in which they are offered.

    The grid's begin is random, since blocks of JPEG begin at multiples of 8.

    Args:
        image: (H, W, C).
        patch_size: side p of a patch in pixels.
        min_contrast: patches with less are left out.
        key: what the random numbers depend on.
        most: give the places of no more.
        margin: pixels around a patch that lie within the image, too.
    """
    height, width = (side - 2 * margin for side in image.shape[:2])
    if min(height, width) < patch_size:
        none = np.empty(0, np.int32)
        return Places(0, 0, none, none)
    begin = word(*key)
    down = int(begin[0] % np.uint64(min(patch_size, height - patch_size + 1)))
    right = int(mixed(begin)[0] % np.uint64(min(patch_size, width - patch_size + 1)))
    rows, columns = patch_grid(height - down, width - right, patch_size)
    top, left = margin + down, margin + right
    grid = image[top : top + rows * patch_size, left : left + columns * patch_size]
    usable = np.flatnonzero(_grid_contrasts(grid, patch_size) >= min_contrast)
    order = mixed(begin ^ mixed(usable.astype(np.uint64)))
    if most < len(usable):
        first = np.argpartition(order, most)[:most]
        chosen = usable[first[np.argsort(order[first])]]
    else:
        chosen = usable[np.argsort(order)]
    y, x = (top + chosen // columns * patch_size, left + chosen % columns * patch_size)
    return Places(rows * columns, len(usable), y.astype(np.int32), x.astype(np.int32))


def cut_patches(
    image: NDArray[np.uint8], patch_size: int, y: NDArray[np.int32], x: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """(H, W, C) and (n,) places -> (n, p, p, C)."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size), axis=(0, 1))
    return np.ascontiguousarray(windows[y, x].transpose(0, 2, 3, 1))  # (n, C, p, p) ->


def likeness(patches: NDArray[np.uint8], thin: float) -> NDArray[np.uint64]:
    """A word for each patch, the same for patches that count as duplicates.

    These agree in the means of the channels and in the signed roots of their covariances, all in steps of ``thin``
    levels: what a Gram matrix, centred or not, tells of a patch, on the scale of pixels.

    Args:
        patches: (N, p, p, C).
        thin: the step; 0 for patches that are equal, pixel by pixel.

    Returns:
        (N,).
    """
    if thin == 0:
        flat = np.ascontiguousarray(patches).reshape(len(patches), -1)
        padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 8)))
        return rows_mixed(padded.view(np.int64))
    found = moments(patches)
    spread = found.covariances
    roots = np.sqrt(np.abs(spread).astype(np.float64)) * np.sign(spread)
    levels = np.concatenate([found.sums, roots], axis=1) / found.pixels
    return rows_mixed(np.rint(levels / thin).astype(np.int64))


def _grid_contrasts(grid: NDArray[np.uint8], patch_size: int) -> NDArray[np.float64]:
    """(R * p, C * p, channels) -> (R * C,), as ``moments.contrasts``, a band of rows at a time."""
    rows, columns = grid.shape[0] // patch_size, grid.shape[1] // patch_size
    band = max(1, PATCHES_AT_ONCE // columns)
    found = []
    for first in range(0, rows, band):
        part = grid[first * patch_size : (first + band) * patch_size].astype(np.int32)
        sums, squares = (_block_sums(levels, patch_size, columns) for levels in (part, part**2))
        found.append(contrasts(patch_size**2, sums, squares))
    return np.concatenate(found)


def _block_sums(levels: NDArray[np.int32], patch_size: int, columns: int) -> NDArray[np.int64]:
    """(R * p, C * p, channels) -> (R * C, channels); first down, then across, which is fastest."""
    down = levels.reshape(-1, patch_size, columns * patch_size, levels.shape[2]).sum(axis=1, dtype=np.int32)
    across = down.reshape(-1, columns, patch_size, levels.shape[2])
    return sum(across[:, :, place] for place in range(patch_size)).reshape(-1, levels.shape[2]).astype(np.int64)
