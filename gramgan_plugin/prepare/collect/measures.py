"""Measure how blurred, enlarged or compressed a photo is, each as one number.

The measures were made for this project. They do not depend on brightness nor, except ``blockiness``, on contrast. The
defaults of ``Criteria`` lie between the values of good and degraded photos.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.images import Image

Plane = NDArray[np.float32]  # (H, W), gray levels 0 to 255

STRIP = 512  # rows measured at a time, to limit memory
MOST_PIXELS = 8_000_000  # of larger photos evenly spread strips are measured; more pixels hardly change the result
BLOCK = 32  # side of the blocks for sharpness
SHARPEST = 0.2  # share of a photo's blocks that has to be sharp: with a shallow depth of field, others are out of focus
SEGMENT = 64  # pixels of a Fourier transform
MIDDLE_BAND, HIGH_BAND = (0.25, 0.4), (0.75, 0.9)  # fractions of the Nyquist frequency
JPEG_BLOCK = 8
STEP_LIMIT = 4.0  # levels; a larger step is an edge of the scene

# The luma table of the JPEG standard's Annex K, which encoders scale by their quality setting.
# fmt: off
STANDARD_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)
# fmt: on


def strips(image: Image) -> list[Plane]:
    """Return a photo's luma in strips of its whole width, evenly spread if the photo is too large.

    Args:
        image: (H, W, 3) BGR.

    Returns:
        (at most 512, W) each; all start at a multiple of 8 rows.
    """
    height, width = image.shape[:2]
    starts = list(range(0, height, STRIP))
    if len(starts) > 1 and height - starts[-1] < SEGMENT + 1:
        starts.pop()
    most = max(1, MOST_PIXELS // (STRIP * width))
    chosen = [starts[number * len(starts) // most] for number in range(most)] if len(starts) > most else starts
    gray = (cv2.cvtColor(image[start : start + STRIP], cv2.COLOR_BGR2GRAY) for start in chosen)
    return [strip.astype(np.float32) for strip in gray]


def sharpness(planes: Sequence[Plane]) -> float:
    """Return the share of the gradients' energy that a small blur removes in the sharpest blocks.

    A blur of one pixel removes most of the energy of sharp edges and hardly any of blurred ones. For each direction
    (horizontal, vertical), the fifth of the blocks with the most energy is used, which excludes a background out of
    focus, and of these the sharpest tenth. The worse direction counts, which detects motion blur. The energy of the
    flattest blocks is taken as noise and subtracted.

    Args:
        planes: see :func:`strips`.

    Returns:
        0 (blurred) to 1; 0 for a photo without gradients.
    """
    blurred = [cv2.GaussianBlur(plane, (0, 0), 1.0) for plane in planes]
    worst = 1.0
    for axis in (0, 1):
        before = np.concatenate([_block_energy(plane, axis) for plane in planes])  # (blocks)
        after = np.concatenate([_block_energy(plane, axis) for plane in blurred])
        if not before.size:
            return 0.0
        counted = before >= np.quantile(before, 1 - SHARPEST)
        rest = np.maximum(after - np.percentile(after, 2), 0)[counted]
        energy = (before - np.percentile(before, 2))[counted]
        left = np.where(energy > 1e-3, rest / np.maximum(energy, 1e-3), 1.0)
        worst = min(worst, 1 - float(np.percentile(left, 10)))
    return max(worst, 0.0)


def spectral_drop(planes: Sequence[Plane]) -> float:
    """Return by how many powers of ten the spectrum falls from middle to high frequencies.

    An enlarged photo lacks frequencies above the Nyquist frequency of the original: enlarged twice, the upper half is
    missing. The mean powers at 0.25 to 0.4 and at 0.75 to 0.9 of the Nyquist frequency are compared, along rows and
    columns; the smaller drop counts.

    Args:
        planes: see :func:`strips`.

    Returns:
        log10 of the ratio; 0 for photos smaller than 64 pixels.
    """
    drops = []
    for planes_along in (planes, [plane.T for plane in planes]):
        power = _mean_power(planes_along)
        if power is None:
            return 0.0
        middle, high = (power[round(a * SEGMENT / 2) : round(b * SEGMENT / 2) + 1] for a, b in (MIDDLE_BAND, HIGH_BAND))
        drops.append(float(np.log10((middle.mean() + 0.01) / (high.mean() + 0.01))))
    return min(drops)


def blockiness(planes: Sequence[Plane]) -> float:
    """Return how much larger steps between pixels are at the borders of JPEG's 8x8 blocks than elsewhere.

    A step counts by its excess over the mean of its two neighbours, at most 4 levels. The grid may start anywhere, for
    example after a crop: the result is the largest of the eight means minus the median of the other seven.

    Args:
        planes: see :func:`strips`.

    Returns:
        0 to 4 levels, the mean of both directions; about 0.1 for photos that were never compressed.
    """
    return float(np.mean([_grid_step(planes, axis) for axis in (0, 1)]))


def jpeg_quality(tables: Sequence[Sequence[int]]) -> int:
    """Return the quality setting, 1 to 100, whose standard luma table is nearest to the file's.

    Args:
        tables: the file's quantisation tables, luma first; 64 numbers each, in any order.
    """
    table = np.sort(np.asarray(tables[0], np.float64))
    return int(np.argmin([np.abs(table - standard).sum() for standard in _standard_tables()])) + 1


def _standard_tables() -> Iterator[NDArray[np.float64]]:
    base = np.sort(np.asarray(STANDARD_LUMA, np.float64))
    for quality in range(1, 101):
        percent = 5000 // quality if quality < 50 else 200 - 2 * quality
        yield np.clip(np.floor((base * percent + 50) / 100), 1, 255)


def _block_energy(plane: Plane, axis: int) -> Plane:
    """Return the mean squared difference along an axis for each block of 32x32."""
    height, width = ((side - 1) // BLOCK for side in plane.shape)
    if not height or not width:
        return np.zeros(0, np.float32)
    squares = np.square(np.diff(plane, axis=axis))[: height * BLOCK, : width * BLOCK]  # (h * 32, w * 32)
    return squares.reshape(height, BLOCK, width, BLOCK).mean(axis=(1, 3)).ravel()


def _mean_power(planes: Sequence[Plane]) -> NDArray[np.float64] | None:
    """Return the power by frequency along the rows, (33,), the mean over all complete segments."""
    window = np.hanning(SEGMENT + 1)[:SEGMENT].astype(np.float32)
    total, count = np.zeros(SEGMENT // 2 + 1), 0
    for plane in planes:
        whole = plane.shape[1] // SEGMENT * SEGMENT
        # Every third row is enough, and includes both kinds of rows of a camera's mosaic.
        segments = plane[::3, :whole].reshape(-1, SEGMENT)  # (rows / 3 * n, 64)
        if segments.size:
            waves = np.fft.rfft((segments - segments.mean(1, keepdims=True)) * window, axis=1)
            total += np.square(np.abs(waves)).sum(0)
            count += len(segments)
    return total / count if count else None


def _grid_step(planes: Sequence[Plane], axis: int) -> float:
    sums, counts = np.zeros(JPEG_BLOCK), np.zeros(JPEG_BLOCK)
    for plane in planes:
        steps = np.abs(np.diff(plane, axis=axis))
        steps = steps if axis == 1 else steps.T  # (lines, steps)
        excess = np.clip(steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2, -STEP_LIMIT, STEP_LIMIT).sum(0)
        phase = np.arange(excess.size) % JPEG_BLOCK
        sums += np.bincount(phase, excess, JPEG_BLOCK)
        counts += np.bincount(phase, minlength=JPEG_BLOCK) * len(steps)
    if not counts.all():
        return 0.0
    means = np.sort(sums / counts)
    return float(means[-1] - np.median(means[:-1]))
