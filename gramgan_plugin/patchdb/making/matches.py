"""Draw the result of a search: patches of an image and their nearest patches in a database."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.data.photos import PhotoError, read_photo
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.patches import patch_grid
from gramgan_plugin.patchdb.making.describing import description_of
from gramgan_plugin.patchdb.making.sheet import Picture, enlarged, patch_contrasts
from gramgan_plugin.patchdb.moments import LEVELS
from gramgan_plugin.patchdb.store import Store
from gramgan_plugin.utils.pictures import labelled, write_line

MOST_PIXELS = 512  # side of the shown part of the image
SHOWN = 12  # patches shown individually
CELL = 48
GAP, HEAD = 8, 28
WHITE = 255


class Search(Protocol):
    """A search for the nearest patches; see ``patchdb.search.PatchSearch``."""

    def search(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return squared distances (M, k) and rows of the database (M, k) for queries (M, D)."""
        ...


class Matches(NamedTuple):
    """The result of a search.

    Attributes:
        picture: (H, W, 3) BGR.
        rows: for each shown patch its place in the image, and distance, photo and place of its nearest patches.
        distance: mean distance of all patches to their nearest patch.
        psnr: PSNR of the image rebuilt from the nearest patches, in dB.
    """

    picture: Picture
    rows: list[dict[str, Any]]
    distance: float
    psnr: float


def picture_of_search(
    store: Store, search: Search, image: Path, top_k: int = 4, vgg_weights: str | None = None
) -> Matches:
    """Search all patches of an image and draw the result.

    At the top are the image (of a large one its middle) and the image rebuilt from the nearest patches. Below are some
    patches from the whole range of contrasts, each with its ``top_k`` nearest patches and their distances. Centred Gram
    matrices do not contain the mean colour, so patches found by them are shown with the mean of the searched patch.

    Args:
        store: the database.
        search: the search in the database.
        image: a photo.
        top_k: number of nearest patches to show.
        vgg_weights: the weights that a database of features was built with; see ``build``.

    Raises:
        UserError: if the image or the weights cannot be used, or the database is not RGB.
    """
    definition = store.definition
    if definition.channels != 3:
        raise UserError(
            f"{store.path}: has {definition.channels} channels; only RGB databases can be searched with an image"
        )
    describes = description_of(definition, vgg_weights, store.path)
    top_k = min(top_k, store.count)
    rgb, corner = _middle(_read(image, definition.patch_side), definition.patch_side)
    patches, (rows, columns) = _split(rgb, definition.patch_side)
    # Features depend on pixels around a patch.
    grams = describes.of_patches(patches) if definition.features is None else describes.of_image(rgb)
    queries = torch.from_numpy(grams)
    squared, index = (found.cpu().numpy() for found in search.search(queries, top_k))
    center = definition.center and definition.features is None
    nearest = _joined(_as_compared(store.inner(index[:, :1]), patches, center)[:, 0], rows, columns)
    chosen = _spread(patch_contrasts(patches), SHOWN)
    distances = np.sqrt(squared.astype(np.float64))
    found = _as_compared(store.inner(index[chosen]), patches[chosen], center)
    below = _pairs(patches[chosen], found, distances[chosen])
    error = float(np.mean((nearest.astype(np.float64) - rgb) ** 2))
    psnr = float("inf") if error == 0 else float(10 * np.log10(LEVELS**2 / error))
    label = f"its nearest patches{', in its colours' if center else ''}, {psnr:.1f} dB"
    both = {"the image": rgb[..., ::-1], label: nearest[..., ::-1]}
    above = labelled(both, zoom=max(1, MOST_PIXELS // max(rgb.shape[:2])))
    names = [str(record.get("name")) for record in store.sources()]
    records = [
        _record(place, columns, store, corner, names, distances[place], index[place]) for place in chosen.tolist()
    ]
    return Matches(_stacked(above, below), records, float(distances[:, 0].mean()), psnr)


def _read(image: Path, patch_size: int) -> NDArray[np.uint8]:
    try:
        rgb = np.ascontiguousarray(read_photo(image)[..., ::-1])
    except PhotoError as error:
        raise UserError(f"{image}: {error}") from error
    height, width = rgb.shape[:2]
    if min(height, width) < patch_size:
        raise UserError(f"{image}: {width}x{height} pixels hold no patch of {patch_size}")
    return rgb


def _middle(rgb: NDArray[np.uint8], patch_size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return the middle of a large image, cut to whole patches, and its upper left corner (y, x)."""
    height, width = (min(side, MOST_PIXELS) for side in rgb.shape[:2])
    rows, columns = patch_grid(height, width, patch_size)
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return rgb[top : top + rows * patch_size, left : left + columns * patch_size], (top, left)


def _split(rgb: NDArray[np.uint8], patch_size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    rows, columns = rgb.shape[0] // patch_size, rgb.shape[1] // patch_size
    grid = rgb.reshape(rows, patch_size, columns, patch_size, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid.reshape(-1, patch_size, patch_size, 3)), (rows, columns)


def _joined(patches: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    side = patches.shape[1]
    return patches.reshape(rows, columns, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(rows * side, -1, 3)


def _spread(contrast: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return indices of patches from the highest to the lowest contrast, evenly spread over their order."""
    order = np.argsort(contrast, kind="stable")[::-1]
    return order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(np.int64))]


def _as_compared(found: NDArray[np.uint8], patches: NDArray[np.uint8], center: bool) -> NDArray[np.uint8]:
    """Give found patches (n, k, p, p, C) the means of the searched ones (n, p, p, C), if Gram matrices are centred."""
    if not center:
        return found
    means = found.mean(axis=(2, 3), keepdims=True) - patches.mean(axis=(1, 2), keepdims=True)[:, None]
    return (found - means).round().clip(0, LEVELS).astype(np.uint8)


def _pairs(patches: NDArray[np.uint8], found: NDArray[np.uint8], distances: NDArray[np.float64]) -> Picture:
    """Draw each patch with its nearest patches and their distances."""
    zoom = max(1, CELL // patches.shape[1])
    side = patches.shape[1] * zoom
    width = GAP + (1 + found.shape[1]) * (side + GAP) + GAP
    blocks = []
    for patch, others, numbers in zip(patches, found, distances, strict=True):
        block = np.full((side + HEAD, width + GAP, 3), WHITE, np.uint8)
        block[:side, GAP : GAP + side] = enlarged(patch, zoom)
        for place, (other, number) in enumerate(zip(others, numbers, strict=True)):
            left = 3 * GAP + side + place * (side + GAP)
            block[:side, left : left + side] = enlarged(other, zoom)
            write_line(block, f"{number:.2g}", left, side + 14, 0.35)
        blocks.append(block)
    blocks += [np.full_like(blocks[0], WHITE)] * (-len(blocks) % 3)
    return np.vstack([np.hstack(blocks[first : first + 3]) for first in range(0, len(blocks), 3)])


def _stacked(above: Picture, below: Picture) -> Picture:
    picture = np.full((len(above) + GAP + len(below), max(above.shape[1], below.shape[1]), 3), WHITE, np.uint8)
    picture[: len(above), : above.shape[1]] = above
    picture[len(above) + GAP :, : below.shape[1]] = below
    return picture


def _record(
    place: int, columns: int, store: Store, corner: tuple[int, int], names: list[str], distances: Any, index: Any
) -> dict[str, Any]:
    side = store.definition.patch_side
    y, x = corner[0] + place // columns * side, corner[1] + place % columns * side
    found = []
    for distance, row in zip(distances.tolist(), index.tolist(), strict=True):
        photo, top, left, variant = store.origins[row].tolist()
        name = names[photo] if 0 <= photo < len(names) else "?"
        found.append({"row": row, "distance": distance, "photo": name, "y": top, "x": left, "variant": variant})
    return {"y": y, "x": x, "found": found}
