"""MATLAB's ``imresize(..., 'bicubic')`` as torch operations: how super-resolution makes its LQ images.

Of an 8-bit image it gives two results. ``MATLAB_BICUBIC``: the image is made floating point first (``im2double``), and
rounded once, at the end, as for BasicSR's test sets. ``MATLAB_UINT8``: the image is handed over as uint8, and imresize
rounds and clips after each of its two passes, down the columns first, as for EDSR's.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

MATLAB_BICUBIC, MATLAB_UINT8 = KINDS = ("matlab-bicubic", "matlab-uint8")
PAD_IN_SCALES = 4  # the bicubic kernel reaches 2 * scale pixels; the rest is room for a pad that divides evenly


def symmetric_index(start: int, stop: int, length: int, device: torch.device | None = None) -> Tensor:
    """Positions ``start`` ... ``stop - 1`` mapped into an image side that is continued by mirrors of itself.

    The mirrors repeat the edge pixel (``... 1 0 | 0 1 2 | 2 1 ...``), as often as the range asks for, so that
    a pad may be longer than the side.

    Args:
        start: first position; negative before the image.
        stop: one after the last position.
        length: pixels of the side.
        device: where the result lies.

    Returns:
        (stop - start,) int64, in [0, length).

    Example:
        >>> symmetric_index(-2, 5, 3).tolist()
        [1, 0, 0, 1, 2, 2, 1]
    """
    position = torch.arange(start, stop, device=device).remainder(2 * length)
    return torch.minimum(position, 2 * length - 1 - position)


def matlab_bicubic(image: Tensor, up: int = 1, down: int = 1) -> Tensor:
    """Resize by ``up / down`` as MATLAB's antialiased bicubic ``imresize`` does, before its rounding.

    Each output pixel is a weighted mean of the input pixels around it. With s = up / down and k the cubic
    kernel with a = -0.5, the pixel at distance d weighs min(s, 1) * k(d * min(s, 1)), so that shrinking
    widens the kernel (the antialiasing); beyond the border the image is mirrored with its edge pixel
    repeated. torch's ``antialias=True`` has that kernel, for enlarging too (its plain bicubic has a = -0.75),
    but not that border.

    Half precision is computed, and returned, in float32, under autocast too; float64 stays float64.

    Args:
        image: (N, C, H, W), floating point, in any unit; linear, so the result has the same unit.
        up: numerator of the scale factor.
        down: denominator of the scale factor.

    Returns:
        (N, C, ceil(H * up / down), ceil(W * up / down)). Overshoots the input's range at edges; not clamped.

    Raises:
        ValueError: if the image is not a floating-point (N, C, H, W) tensor or a factor is below 1.

    Example:
        >>> matlab_bicubic(torch.full((1, 3, 8, 12), 0.5), down=4).shape
        torch.Size([1, 3, 2, 3])
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(f"image: expected floating point (N, C, H, W), got {image.dtype} {tuple(image.shape)}")
    if up < 1 or down < 1:
        raise ValueError(f"up and down must be at least 1, got {up} and {down}")
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    if up == down:
        return image

    height, width = image.shape[-2:]
    out_height, out_width = -(-height * up // down), -(-width * up // down)
    pad = PAD_IN_SCALES * down
    # The padded sides are multiples of `down`: the scale that torch derives from the two sizes is then exact.
    rows = symmetric_index(-pad, -(-height // down) * down + pad, height, image.device)
    columns = symmetric_index(-pad, -(-width // down) * down + pad, width, image.device)
    padded = image.index_select(-2, rows).index_select(-1, columns)
    size = (len(rows) * up // down, len(columns) * up // down)
    resized = F.interpolate(padded, size=size, mode="bicubic", antialias=True)
    cut = PAD_IN_SCALES * up
    return resized[..., cut : cut + out_height, cut : cut + out_width]


def round_to_uint8(image: Tensor) -> Tensor:
    """The value that an image has after being stored in 8 bits: n / 255, halves rounded up, clamped.

    Carries no gradient, as rounding has none.

    Args:
        image: any shape, floating point, in about [0, 1].

    Returns:
        The shape of ``image``, values n / 255 in [0, 1], at least float32.

    Example:
        >>> (round_to_uint8(torch.tensor([-0.2, 0.5, 1.1])) * 255).tolist()
        [0.0, 128.0, 255.0]
    """
    image = image.detach().to(torch.promote_types(image.dtype, torch.float32))
    return (image * 255 + 0.5).floor().clamp(0, 255) / 255


def lq_levels(gt: Tensor, scale: int, kind: str = MATLAB_BICUBIC) -> Tensor:
    """The 8-bit LQ image of an 8-bit GT image: MATLAB bicubic by 1 / scale.

    Works on levels in float64: at the scales 2, 4 and 8 all weights are dyadic fractions, so the sums are
    exact, and a window of an image has the very LQ values that the whole image has there, however it is
    flipped or rotated and on whichever device. In float32 values next to a half would fall to either side.
    With ``matlab-uint8`` they are exact at every scale, but the result of a transposed image is not the
    transposed result, as the passes have an order.

    Args:
        gt: (N, C, H, W) uint8, or floating point levels in [0, 255]; whole ones for ``matlab-uint8``.
        scale: the factor by which LQ is smaller.
        kind: ``matlab-bicubic`` (rounded at the end) or ``matlab-uint8`` (rounded after each pass, too).

    Returns:
        (N, C, ceil(H / scale), ceil(W / scale)), uint8.

    Raises:
        ValueError: for another kind.

    Example:
        >>> lq_levels(torch.full((1, 3, 8, 8), 17, dtype=torch.uint8), 4).unique().tolist()
        [17]
        >>> corner = torch.zeros(1, 1, 8, 8)
        >>> corner[..., :3, :3] = 255
        >>> [lq_levels(corner, 2, kind)[0, 0, :2, :2].tolist() for kind in ("matlab-bicubic", "matlab-uint8")]
        [[[255, 133], [133, 64]], [[255, 128], [134, 64]]]
    """
    exact = torch.float32 if gt.device.type == "mps" else torch.float64  # MPS has no float64
    levels = gt.to(exact)
    if kind == MATLAB_BICUBIC:
        return (matlab_bicubic(levels, down=scale) + 0.5).floor().clamp(0, 255).to(torch.uint8)
    if kind != MATLAB_UINT8:
        raise ValueError(f"kind: one of {', '.join(KINDS)}, got {kind!r}")
    for axis in (-2, -1):
        levels = _rounded_pass(levels, scale, axis)
    return levels.to(torch.uint8)


def _rounded_pass(levels: Tensor, scale: int, axis: int) -> Tensor:
    """Shrink whole levels along one axis; halves are rounded up, the result is clipped to [0, 255]."""
    weights = torch.tensor(_whole_weights(scale), dtype=levels.dtype, device=levels.device)
    length = levels.shape[axis]
    first = -(len(weights) - scale) // 2  # of the input positions that go into the first output position
    last = first + (-(-length // scale) - 1) * scale + len(weights)
    around = levels.index_select(axis, symmetric_index(first, last, length, levels.device))
    taps = around.unfold(axis, len(weights), scale)  # (..., taps), the axis now of the output's length
    return ((taps @ weights) / weights.sum() + 0.5).floor().clamp(0, 255)


@cache
def _whole_weights(scale: int) -> tuple[int, ...]:
    """The weights of the cubic kernel at the input positions around an output position, times their denominator.

    Their sums over whole levels are whole numbers, which floating point holds exactly and adds in any order.
    """
    period = 2 * scale  # in half input pixels: the output's centre lies on or between input pixels
    reach = 2 * period - (1 if scale % 2 == 0 else 2)
    weights = []
    for distance in map(abs, range(-reach, reach + 1, 2)):
        x, x2, x3 = distance * period**2, distance**2 * period, distance**3
        inner, outer = 3 * x3 - 5 * x2 + 2 * period**3, -x3 + 5 * x2 - 8 * x + 4 * period**3
        weights.append(inner if distance <= period else outer)
    return tuple(weights)
