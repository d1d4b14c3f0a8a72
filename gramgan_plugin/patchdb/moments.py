"""Compute integer sums over the pixels of 8-bit patches, for Gram vectors and contrasts equal on every machine."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.patchdb.database_manifest import Definition

LEVELS = 255


class Moments(NamedTuple):
    """Exact sums over the pixels of N patches.

    Attributes:
        pixels: number of pixels of one patch.
        sums: (N, C) int64, sums of each channel.
        products: (N, M) int64, sums of products of each pair of channels: (0, 0), (0, 1), ..., (1, 1), ...
    """

    pixels: int
    sums: NDArray[np.int64]
    products: NDArray[np.int64]

    @property
    def covariances(self) -> NDArray[np.int64]:
        """Covariances of the channels within each patch, times ``pixels ** 2``: (N, M) int64."""
        pairs = channel_pairs(self.sums.shape[1])
        means = np.stack([self.sums[:, i] * self.sums[:, j] for i, j in pairs], axis=1)
        return self.pixels * self.products - means


def moments(patches: NDArray[np.uint8]) -> Moments:
    """Return the sums of (N, p, p, C) patches, for p up to 128.

    Example:
        >>> moments(np.full((1, 2, 2, 1), 3, np.uint8))
        Moments(pixels=4, sums=array([[12]]), products=array([[36]]))
    """
    count, height, width, channels = patches.shape
    flat = patches.reshape(count, height * width, channels)
    planes = np.ascontiguousarray(flat.transpose(2, 0, 1), dtype=np.int32)  # (N, L, C) -> (C, N, L)
    products = [np.einsum("nl,nl->n", planes[i], planes[j]) for i, j in channel_pairs(channels)]
    sums = planes.sum(axis=2, dtype=np.int64).T
    return Moments(height * width, sums, np.stack(products, axis=1).astype(np.int64))


def gram_rows(found: Moments, definition: Definition) -> NDArray[np.float32]:
    """Return ``functional.gram_vectors`` of ``patches / 255`` from exact sums, rounded once.

    The result depends neither on the number of patches computed together nor on the machine.

    Returns:
        (N, C * (C + 1) / 2).
    """
    pairs = channel_pairs(found.sums.shape[1])
    entries = found.covariances / found.pixels if definition.center else found.products.astype(np.float64)
    if definition.normalize:
        entries /= found.pixels
    scale = np.array([1.0 if i == j else 2.0**0.5 for i, j in pairs]) / LEVELS**2
    return (entries * scale).astype(np.float32)


def contrasts(pixels: int, sums: NDArray[np.int64], squares: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the standard deviation within each patch, root mean square over the channels, for values in [0, 1].

    Args:
        pixels: number of pixels of a patch.
        sums: (N, C), sums over the pixels of each patch.
        squares: (N, C), sums of squares.

    Returns:
        (N,).
    """
    variances = (pixels * squares - sums**2).sum(axis=1) / (sums.shape[1] * pixels**2)
    return np.sqrt(variances) / LEVELS


def channel_pairs(channels: int) -> list[tuple[int, int]]:
    """Return the index pairs of a Gram matrix's upper triangle, row by row."""
    return [(i, j) for i in range(channels) for j in range(i, channels)]
