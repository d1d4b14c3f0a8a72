"""LQ of whole photos: the very values of ``functional.matlab_bicubic.lq_levels``, in a fraction of its time."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gramgan_plugin.data.images import Image
from gramgan_plugin.functional.matlab_bicubic import KINDS, MATLAB_BICUBIC, MATLAB_UINT8, lq_levels, symmetric_index

ROWS_AT_ONCE = 16  # output rows of one matrix product: few zeros in the band, and its input stays in the cache


def shrink(image: Image, scale: int, kind: str = MATLAB_BICUBIC) -> Image:
    """MATLAB's bicubic by ``1 / scale``, rounded to 8 bits: see :func:`shrink_as`."""
    return shrink_as((kind,), image, scale)[0]


def shrink_as(kinds: Sequence[str], image: Image, scale: int) -> list[Image]:
    """MATLAB's bicubic by ``1 / scale``, of each of the kinds that ``lq_levels`` has.

    At the scales 2, 4 and 8 all weights are dyadic fractions and no sum needs more digits than the type in use has,
    so that any order of summation gives the same, exact value: rows and columns are shrunk by products with a banded
    matrix. At 3 the sums are whole numbers of 81sts or 6561sts of a level, none near a half. At other scales
    values next to a half depend on the order, and ``lq_levels`` itself is asked.

    Args:
        kinds: names of kinds.
        image: (H, W, 3), both sides multiples of ``scale``.
        scale: the factor by which the results are smaller.

    Returns:
        (H / scale, W / scale, 3) for each kind.

    Raises:
        ValueError: if a side is no multiple of ``scale``, or for another kind.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"image: {width}x{height} is not mod-cropped to {scale}")
    if scale not in (2, 3, 4, 8) or not set(kinds) <= set(KINDS):
        levels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
        return [lq_levels(levels, scale, kind)[0].permute(1, 2, 0).contiguous().numpy() for kind in kinds]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).reshape(height, -1)  # (H, W * 3)
    # After one pass at the scales 2 and 4 values are sums of 256 or 4096 parts of a level: 24 bits hold them.
    first = _shrink_rows(pixels, scale, torch.float32 if scale in (2, 4) else torch.float64)
    passes = [_round(first.clone()) if kind == MATLAB_UINT8 else first for kind in kinds]
    return [_shrink_columns(one.reshape(-1, width, 3), scale) for one in passes]


def _shrink_columns(image: Tensor, scale: int) -> Image:
    """(H / scale, W, 3) -> (H / scale, W / scale, 3), rounded."""
    height, width = image.shape[:2]
    across = image.transpose(0, 1).reshape(width, -1)  # (W, H / s * 3)
    levels = _round(_shrink_rows(across, scale, torch.float64)).to(torch.uint8)  # (W / s, H / s * 3)
    return levels.reshape(width // scale, height, 3).transpose(0, 1).contiguous().numpy()


def _round(levels: Tensor) -> Tensor:
    return levels.add_(0.5).floor_().clamp_(0, 255)


def _shrink_rows(image: Tensor, scale: int, dtype: torch.dtype) -> Tensor:
    """(H, L) -> (H / scale, L), each output row a weighted sum of the ``4 * scale`` rows around it."""
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
    """Return the first row that goes into the first output row, whose centre lies at (scale - 1) / 2."""
    return scale // 2 - 2 * scale


@cache
def _band(scale: int, dtype: torch.dtype) -> Tensor:
    """(R, (R + 3) * scale): the weights of R consecutive output rows on the input rows that they need."""
    first = _begin(scale) - (scale - 1) / 2
    weights = torch.tensor([_cubic((first + tap) / scale) / scale for tap in range(4 * scale)], dtype=dtype)
    band = torch.zeros(ROWS_AT_ONCE, (ROWS_AT_ONCE + 3) * scale, dtype=dtype)
    for row in range(ROWS_AT_ONCE):
        band[row, row * scale : (row + 4) * scale] = weights
    return band


def _cubic(distance: float) -> float:
    """Return the cubic kernel with a = -0.5."""
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0
