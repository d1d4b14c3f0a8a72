"""Resize as MATLAB's ``imresize(..., 'bicubic')``, with which super-resolution makes its LQ images.

An 8-bit image has two results. ``MATLAB_BICUBIC``: the image is converted to floating point first (``im2double``), and
rounded once, at the end, as in BasicSR's test sets. ``MATLAB_UINT8``: imresize gets uint8, and rounds and clips after
each of its two passes, along the columns first, as in EDSR's.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gramgan_plugin.functional.constants import constant
from gramgan_plugin.utils.devices import finest_dtype

MATLAB_BICUBIC, MATLAB_UINT8 = KINDS = ("matlab-bicubic", "matlab-uint8")
PAD_IN_SCALES = 4  # the bicubic kernel reaches 2 * scale pixels; more makes the pad a multiple of the scale


def symmetric_index(start: int, stop: int, length: int, device: torch.device | None = None) -> Tensor:
    """Map positions ``start`` ... ``stop - 1`` into an image side that is continued by reflection.

    Reflections repeat the edge pixel (``... 1 0 | 0 1 2 | 2 1 ...``) as often as the range needs, so that a pad may be
    longer than the side.

    Args:
        start: first position; negative before the image.
        stop: one after the last position.
        length: pixels of the side.
        device: of the result.

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
    widens the kernel (the antialiasing); beyond the border the image is reflected with its edge pixel
    repeated. torch's ``antialias=True`` has that kernel, also for enlarging (without it, a = -0.75), but not that
    border.

    Half precision is computed and returned in float32, also under autocast; float64 stays float64.

    Args:
        image: (N, C, H, W), floating point, in any unit, which the result has too.
        up: numerator of the scale factor.
        down: denominator of the scale factor.

    Returns:
        (N, C, ceil(H * up / down), ceil(W * up / down)), not clamped: it overshoots the input's range at edges.

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
    """Return an image as after storage in 8 bits: n / 255, halves rounded up, clamped; without gradient.

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
    """Return the 8-bit LQ image of an 8-bit GT image: MATLAB bicubic by 1 / scale.

    Computes with levels in float64. At the scales 2, 4 and 8 all weights are dyadic fractions, so the sums are
    exact: a window of an image has the same LQ values as the whole image, on every device, also flipped or
    rotated. In float32 values next to a half could round either way. With ``matlab-uint8`` sums are exact at
    every scale, but transposing the image does not transpose the result, since the passes have an order.

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
    exact = finest_dtype(gt.device.type)
    levels = gt.to(exact)
    if kind == MATLAB_BICUBIC:
        return (matlab_bicubic(levels, down=scale) + 0.5).floor().clamp(0, 255).to(torch.uint8)
    if kind != MATLAB_UINT8:
        raise ValueError(f"kind: one of {', '.join(KINDS)}, got {kind!r}")
    for axis in (-2, -1):
        levels = _rounded_pass(levels, scale, axis)
    return levels.to(torch.uint8)


def _rounded_pass(levels: Tensor, scale: int, axis: int) -> Tensor:
    """Return whole levels, downsampled along one axis, halves rounded up, clipped to [0, 255]."""
    weights = constant(_whole_weights(scale), levels.dtype, levels.device)
    length = levels.shape[axis]
    first = -(len(weights) - scale) // 2  # of the input positions that go into the first output position
    last = first + (-(-length // scale) - 1) * scale + len(weights)
    around = levels.index_select(axis, symmetric_index(first, last, length, levels.device))
    taps = around.unfold(axis, len(weights), scale)  # (..., taps); the axis has the output's length
    return ((taps @ weights) / weights.sum() + 0.5).floor().clamp(0, 255)


@cache
def _whole_weights(scale: int) -> tuple[int, ...]:
    """Return the weights of the cubic kernel around an output position, times their common denominator.

    Their sums over whole levels are whole numbers, which floating point represents exactly in any order of addition.
    """
    period = 2 * scale  # in half input pixels: the output's centre lies on or between input pixels
    reach = 2 * period - (1 if scale % 2 == 0 else 2)
    weights = []
    for distance in map(abs, range(-reach, reach + 1, 2)):
        x, x2, x3 = distance * period**2, distance**2 * period, distance**3
        inner, outer = 3 * x3 - 5 * x2 + 2 * period**3, -x3 + 5 * x2 - 8 * x + 4 * period**3
        weights.append(inner if distance <= period else outer)
    return tuple(weights)
