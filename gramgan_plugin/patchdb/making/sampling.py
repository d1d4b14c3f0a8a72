"""Choose which patches of an image are offered, and in which order: not flat, at random places."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.functional.patches import patch_grid
from gramgan_plugin.patchdb.making.numbers import mixed, rows_mixed, word
from gramgan_plugin.patchdb.moments import contrasts, moments

PATCHES_AT_ONCE = 32768


class Places(NamedTuple):
    """The places of an image's usable patches.

    Attributes:
        examined: number of examined patches: a grid without overlap and with a random start.
        usable: number of patches that are not flat.
        y: (n,) top rows of the first ``n`` usable patches in their random order.
        x: (n,) left columns.
    """

    examined: int
    usable: int
    y: NDArray[np.int32]
    x: NDArray[np.int32]


def find_places(
    image: NDArray[np.uint8], patch_size: int, min_contrast: float, key: tuple[int, ...], most: int, margin: int = 0
) -> Places:
    """Return the patches of an image in the order in which they are offered.

    The grid's start is random, since JPEG blocks start at multiples of 8.

    Args:
        image: (H, W, C).
        patch_size: side p of a patch in pixels.
        min_contrast: patches with less contrast are left out.
        key: seed of the random numbers.
        most: maximum number of places to return.
        margin: pixels around a patch that must also be within the image.
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
    """Cut patches (n, p, p, C) at (n,) places out of an image (H, W, C)."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size), axis=(0, 1))
    return np.ascontiguousarray(windows[y, x].transpose(0, 2, 3, 1))  # (n, C, p, p) ->


def likeness(patches: NDArray[np.uint8], thin: float) -> NDArray[np.uint64]:
    """Return a word for each patch, the same for patches that count as near-duplicates.

    Near-duplicates agree in the means of the channels and in the signed roots of their covariances, rounded to steps of
    ``thin`` levels: the information in a Gram matrix, centred or not, in units of pixel levels.

    Args:
        patches: (N, p, p, C).
        thin: the step; 0 if only equal patches count as duplicates.

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
    """Compute ``moments.contrasts`` of a grid, a band of rows at a time: (R * p, C * p, channels) -> (R * C,)."""
    rows, columns = grid.shape[0] // patch_size, grid.shape[1] // patch_size
    band = max(1, PATCHES_AT_ONCE // columns)
    found = []
    for first in range(0, rows, band):
        part = grid[first * patch_size : (first + band) * patch_size].astype(np.int32)
        sums, squares = (_block_sums(levels, patch_size, columns) for levels in (part, part**2))
        found.append(contrasts(patch_size**2, sums, squares))
    return np.concatenate(found)


def _block_sums(levels: NDArray[np.int32], patch_size: int, columns: int) -> NDArray[np.int64]:
    """Sum over patches, first down, then across (the fastest order): (R * p, C * p, channels) -> (R * C, channels)."""
    down = levels.reshape(-1, patch_size, columns * patch_size, levels.shape[2]).sum(axis=1, dtype=np.int32)
    across = down.reshape(-1, columns, patch_size, levels.shape[2])
    return sum(across[:, :, place] for place in range(patch_size)).reshape(-1, levels.shape[2]).astype(np.int64)
