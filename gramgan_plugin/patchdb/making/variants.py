"""Make the images that a photo's patches are cut from: itself, its half, a slightly warped copy. 8 bits each."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.functional.candidates import affine_warp, downsampled, random_theta
from gramgan_plugin.patchdb.making.settings import Settings
from gramgan_plugin.patchdb.moments import LEVELS

RGB = NDArray[np.uint8]  # (H, W, 3)
TILE = 1024  # side of the tiles computed at a time, so that large photos need little further memory


def variant_images(rgb: RGB, settings: Settings, sha256: str) -> Iterator[tuple[int, RGB]]:
    """Yield the variants of a photo, each with its place in ``VARIANTS``.

    A photo with a side above ``TILE`` is warped in tiles, each by its own matrix.

    Args:
        rgb: the photo.
        settings: the variants, and the magnitude of the warp.
        sha256: hash of the photo, for the random numbers.
    """
    for number in settings.variant_numbers():
        if number == 0:
            yield number, rgb
        elif number == 1:
            yield number, _halved(rgb)
        else:
            yield number, _warped(rgb, settings, sha256)


def _halved(rgb: RGB) -> RGB:
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    halved = np.empty((height, width, 3), np.uint8)
    if halved.size:
        for rows, columns in _tiles(2 * height, 2 * width):  # without an odd last row: every tile is halved exactly
            small = _as_rgb(downsampled(_as_image(rgb[rows, columns]), 2))
            halved[rows.start // 2 : rows.stop // 2, columns.start // 2 : columns.stop // 2] = small
    return halved


def _warped(rgb: RGB, settings: Settings, sha256: str) -> RGB:
    words = [int(sha256[place : place + 8], 16) for place in (0, 8)]
    tiles = list(_tiles(*rgb.shape[:2]))
    thetas = random_theta(1, len(tiles), settings.magnitude, (settings.seed, *words))
    warped = np.empty_like(rgb)
    for (rows, columns), theta in zip(tiles, thetas[0], strict=True):
        warped[rows, columns] = _as_rgb(affine_warp(_as_image(rgb[rows, columns]), theta[None]))
    return warped


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield windows of about equal size that cover an image and start at even places."""
    for top, bottom in _cuts(height):
        for left, right in _cuts(width):
            yield slice(top, bottom), slice(left, right)


def _cuts(length: int) -> list[tuple[int, int]]:
    parts = -(-length // TILE)
    edges = [length * part // parts // 2 * 2 for part in range(parts)]
    return list(zip(edges, [*edges[1:], length], strict=True))


def _as_image(rgb: RGB) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / LEVELS  # (1, 3, H, W)


def _as_rgb(image: Tensor) -> RGB:
    levels = (image[0].clamp(0, 1) * LEVELS).round().to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous().numpy()
