"""Make LQ of whole photos: the same values as ``functional.matlab_bicubic.lq_levels`` in a fraction of the time."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gramgan_plugin.data.images import Image
from gramgan_plugin.functional.matlab_bicubic import KINDS, MATLAB_BICUBIC, MATLAB_UINT8, lq_levels, symmetric_index

ROWS_AT_ONCE = 16  # output rows of a matrix product: the band has few zeros, and the input stays in the cache


def shrink(image: Image, scale: int, kind: str = MATLAB_BICUBIC) -> Image:
    """Shrink by ``1 / scale`` with MATLAB's bicubic, rounded to 8 bits; see :func:`shrink_as`."""
    return shrink_as((kind,), image, scale)[0]


def shrink_as(kinds: Sequence[str], image: Image, scale: int) -> list[Image]:
    """Shrink by ``1 / scale`` with each given kind of MATLAB's bicubic.

    At scales 2, 4 and 8 all weights are dyadic fractions and the sums fit the type's digits, so that every order of
    summation gives the same exact value: rows and columns are shrunk by products with a banded matrix. At scale 3 the
    sums are multiples of 1/81 or 1/6561 of a level, none near a half. At other scales values near a half depend on the
    order, and ``lq_levels`` itself is used.

    Args:
        kinds: kinds of ``lq_levels``.
        image: (H, W, 3), both sides multiples of ``scale``.
        scale: the factor between the image and the results.

    Returns:
        (H / scale, W / scale, 3) for each kind.

    Raises:
        ValueError: if a side is not a multiple of ``scale``, or for an unknown kind.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"image: {width}x{height} is not mod-cropped to {scale}")
    if scale not in (2, 3, 4, 8) or not set(kinds) <= set(KINDS):
        levels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
        return [lq_levels(levels, scale, kind)[0].permute(1, 2, 0).contiguous().numpy() for kind in kinds]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).reshape(height, -1)  # (H, W * 3)
    # After one pass at scales 2 and 4 values are multiples of 1/256 or 1/4096 of a level, which fit into 24 bits.
    first = _shrink_rows(pixels, scale, torch.float32 if scale in (2, 4) else torch.float64)
    passes = [_round(first.clone()) if kind == MATLAB_UINT8 else first for kind in kinds]
    return [_shrink_columns(one.reshape(-1, width, 3), scale) for one in passes]


def _shrink_columns(image: Tensor, scale: int) -> Image:
    """Shrink columns and round: (H / scale, W, 3) -> (H / scale, W / scale, 3)."""
    height, width = image.shape[:2]
    across = image.transpose(0, 1).reshape(width, -1)  # (W, H / s * 3)
    levels = _round(_shrink_rows(across, scale, torch.float64)).to(torch.uint8)  # (W / s, H / s * 3)
    return levels.reshape(width // scale, height, 3).transpose(0, 1).contiguous().numpy()


def _round(levels: Tensor) -> Tensor:
    return levels.add_(0.5).floor_().clamp_(0, 255)


def _shrink_rows(image: Tensor, scale: int, dtype: torch.dtype) -> Tensor:
    """Shrink rows, each a weighted sum of the ``4 * scale`` rows around it: (H, L) -> (H / scale, L)."""
    height, length = image.shape
    out = torch.empty(height // scale, length, dtype=dtype)
    band = _band(scale, dtype)
    begin = _begin(scale)
    needed = symmetric_index(begin, begin + height + 4 * scale, height)
    for row in range(0, len(out), ROWS_AT_ONCE):
        part = out[row : row + ROWS_AT_ONCE]
        taps = (len(part) + 3) * scale
        of = image[needed[row * scale : row * scale + taps]].to(dtype)
        torch.mm(band[: len(part), :taps], of, out=part)
    return out


def _begin(scale: int) -> int:
    """Return the first input row of the first output row, whose centre is at (scale - 1) / 2."""
    return scale // 2 - 2 * scale


@cache
def _band(scale: int, dtype: torch.dtype) -> Tensor:
    """Return (R, (R + 3) * scale): the weights of R consecutive output rows for their input rows."""
    first = _begin(scale) - (scale - 1) / 2
    weights = torch.tensor([_cubic((first + tap) / scale) / scale for tap in range(4 * scale)], dtype=dtype)
    band = torch.zeros(ROWS_AT_ONCE, (ROWS_AT_ONCE + 3) * scale, dtype=dtype)
    for row in range(ROWS_AT_ONCE):
        band[row, row * scale : (row + 4) * scale] = weights
    return band


def _cubic(distance: float) -> float:
    """Return the value of the cubic kernel with a = -0.5."""
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
