"""Compute `gram_vectors` for all patches of an image at once, with an explicit backward.

Few channels are processed pair by pair and row by row, so that no temporary is larger than the image and additions run
along whole rows. Many channels (features of a network) are processed as matrix products, one per patch.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gramgan_plugin.functional.constants import constant
from gramgan_plugin.functional.patches import patch_grid
from gramgan_plugin.utils.devices import finest_dtype

# The most channels that are processed pair by pair; the number of pairs grows with the square.
FEW_CHANNELS = 8
ROOT = 2.0**0.5


def channel_pairs(channels: int) -> list[tuple[int, int]]:
    """Return the (row, column) of each entry of a Gram vector: the upper triangle, row by row."""
    return [(i, j) for i in range(channels) for j in range(i, channels)]


def upper_triangle(matrices: Tensor) -> Tensor:
    """Return symmetric (..., C, C) as vectors (..., C * (C + 1) / 2), off-diagonal entries times the root of 2."""
    channels = matrices.shape[-1]
    upper = constant(tuple(i * channels + j for i, j in channel_pairs(channels)), torch.long, matrices.device)
    return matrices.flatten(-2).index_select(-1, upper) * _scales(channels, 1.0, 1, matrices)


class GramVectors(torch.autograd.Function):
    """Gram vectors (N, P, M) of images (N, C, H, W) in float32 or float64.

    The gradient of G = p^T p is p (S + S^T), where S is the incoming gradient. It is summed in a fixed order, also on a
    GPU. A second derivative raises an error.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, patch_size: int, stride: int, normalize: bool, center: bool) -> Tensor:
        image = image.contiguous()
        ctx.save_for_backward(image)
        ctx.options = patch_size, stride, normalize, center
        method = _few_channels if image.shape[1] <= FEW_CHANNELS else _many_channels
        return method(image, patch_size, stride, normalize, center)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (image,) = ctx.saved_tensors
        method = _few_backward if image.shape[1] <= FEW_CHANNELS else _many_backward
        return method(image, grad, *ctx.options), None, None, None, None


def window_sums(image: Tensor, patch_size: int, stride: int) -> Tensor:
    """Return the sum over each patch, (..., H, W) -> (..., rows, columns): rows first, each in ascending order."""
    rows, columns = patch_grid(image.shape[-2], image.shape[-1], patch_size, stride)
    return _column_sums(_row_sums(image, patch_size, stride, rows), patch_size, stride, columns)


def spread(values: Tensor, patch_size: int, stride: int, height: int, width: int) -> Tensor:
    """Return for each pixel the sum of the values of the patches that contain it: the transpose of `window_sums`."""
    return _spread_rows(_spread_columns(values, patch_size, stride, width), patch_size, stride, height)


def _few_channels(image: Tensor, p: int, stride: int, normalize: bool, center: bool) -> Tensor:
    n, channels, height, width = image.shape
    rows, columns = patch_grid(height, width, p, stride)
    if center and stride != p:
        # Each pixel is in several patches with different means. E[x y] - E[x] E[y] cancels, so it needs float64.
        vectors = _few_moments(image.to(finest_dtype(image.device.type)), p, stride).to(image.dtype)
    else:
        means = _spread_columns(window_sums(image, p, stride) / p**2, p, stride, width) if center else None
        pairs = channel_pairs(channels)
        sums = image.new_empty(len(pairs), n, rows, width)
        product = image.new_empty(n, rows, width)
        for y in range(p if rows else 0):
            line = _rows(image, y, stride, rows)  # (N, C, rows, W)
            if means is not None:
                line = line - means
            for m, (i, j) in enumerate(pairs):
                # Not addcmul: it fuses the two roundings for some elements only, so that equal patches would get
                # different vectors.
                torch.mul(line[:, i], line[:, j], out=sums[m] if y == 0 else product)
                if y:
                    sums[m] += product
        vectors = _column_sums(sums, p, stride, columns)  # (M, N, rows, columns)
    vectors = vectors.flatten(2)
    for m, (i, j) in enumerate(channel_pairs(channels)):
        factor = (1.0 if i == j else ROOT) / (p**2 if normalize else 1)
        if factor != 1:
            vectors[m] *= factor
    return vectors.permute(1, 2, 0)


def _few_moments(image: Tensor, p: int, stride: int) -> Tensor:
    """Return sums of products of deviations from the patch's mean: (N, C, H, W) -> (M, N, rows, columns)."""
    means = window_sums(image, p, stride) / p**2  # (N, C, rows, columns)
    pairs = channel_pairs(image.shape[1])
    sums = [window_sums(image[:, i] * image[:, j], p, stride) - p**2 * means[:, i] * means[:, j] for i, j in pairs]
    # A variance may round to less than 0.
    return torch.stack([s.clamp_min(0) if i == j else s for s, (i, j) in zip(sums, pairs, strict=True)])


def _few_backward(image: Tensor, grad: Tensor, p: int, stride: int, normalize: bool, center: bool) -> Tensor:
    n, channels, height, width = image.shape
    rows, columns = patch_grid(height, width, p, stride)
    weight = {}
    for m, (i, j) in enumerate(channel_pairs(channels)):
        factor = (2.0 if i == j else ROOT) / (p**2 if normalize else 1)
        weight[i, j] = weight[j, i] = grad[..., m].reshape(n, rows, columns) * factor
    out = torch.zeros_like(image)
    if stride != p:
        means = window_sums(image, p, stride) / p**2 if center else None
        for i in range(channels):
            for j in range(channels):
                out[:, i] += spread(weight[i, j], p, stride, height, width) * image[:, j]
                if means is not None:
                    out[:, i] -= spread(weight[i, j] * means[:, j], p, stride, height, width)
        return out
    means = _spread_columns(window_sums(image, p, p) / p**2, p, p, width) if center else None
    wide = {pair: _spread_columns(weight[pair], p, p, width) for pair in channel_pairs(channels)}
    for y in range(p):
        line = _rows(image, y, p, rows)  # (N, C, rows, W)
        if means is not None:
            line = line - means
        for i in range(channels):
            target = _rows(out, y, p, rows)[:, i]
            for j in range(channels):
                target += wide[min(i, j), max(i, j)] * line[:, j]
    return out


def _many_channels(image: Tensor, p: int, stride: int, normalize: bool, center: bool) -> Tensor:
    """Compute in float64, which no setting rounds to fewer digits, unlike float32; one sample at a time."""
    vectors = []
    for one in image.split(1):
        patches = _unfolded(one, p, stride, center)  # (P, C, p * p)
        vectors.append(upper_triangle(patches @ patches.transpose(1, 2)).to(image.dtype))
    stacked = torch.stack(vectors)
    return stacked.div_(p**2) if normalize else stacked


def _many_backward(image: Tensor, grad: Tensor, p: int, stride: int, normalize: bool, center: bool) -> Tensor:
    channels = image.shape[1]
    place = constant(_entries(channels), torch.long, image.device)
    scale = _scales(channels, 2.0, p**2 if normalize else 1, image).to(finest_dtype(image.device.type))
    out = torch.empty_like(image)
    for n, one in enumerate(image.split(1)):
        patches = _unfolded(one, p, stride, center)
        weight = (grad[n] * scale).index_select(1, place).unflatten(1, (channels, channels))  # (P, C, C)
        # Deviations from the mean sum to 0, and so does this: the mean's gradient adds no term.
        columns = (weight @ patches).flatten(1).t()[None]  # (1, C * p * p, P)
        height, width = _covered(image, p, stride)
        out[n].zero_()
        out[n, :, :height, :width] = F.fold(columns, (height, width), p, stride=stride)[0]
    return out


def _unfolded(image: Tensor, p: int, stride: int, center: bool) -> Tensor:
    """Return the patches of (1, C, H, W) as (P, C, p * p) in float64."""
    height, width = _covered(image, p, stride)
    columns = F.unfold(
        image[..., :height, :width].to(finest_dtype(image.device.type)), p, stride=stride
    )  # (1, C * p * p, P)
    patches = columns[0].t().unflatten(1, (image.shape[1], p * p))
    return patches - patches.mean(dim=2, keepdim=True) if center else patches


def _covered(image: Tensor, p: int, stride: int) -> tuple[int, int]:
    rows, columns = patch_grid(image.shape[2], image.shape[3], p, stride)
    return (rows - 1) * stride + p, (columns - 1) * stride + p


@lru_cache
def _entries(channels: int) -> tuple[int, ...]:
    """Return the position in the vector of each of a matrix's C * C entries."""
    place = {pair: m for m, pair in enumerate(channel_pairs(channels))}
    return tuple(place[min(i, j), max(i, j)] for i in range(channels) for j in range(channels))


def _scales(channels: int, diagonal: float, pixels: int, like: Tensor) -> Tensor:
    scales = tuple((diagonal if i == j else ROOT) / pixels for i, j in channel_pairs(channels))
    return constant(scales, like.dtype, like.device)


def _rows(image: Tensor, start: int, stride: int, count: int) -> Tensor:
    """Return ``count`` rows of (..., H, W): ``start``, ``start + stride``, ..."""
    return image[..., start : start + stride * (count - 1) + 1 : stride, :]


def _row_sums(image: Tensor, p: int, stride: int, rows: int) -> Tensor:
    if rows == 0:
        return image.new_empty(*image.shape[:-2], 0, image.shape[-1])
    total = _rows(image, 0, stride, rows).clone()
    for y in range(1, p):
        total += _rows(image, y, stride, rows)
    return total


def _column_sums(image: Tensor, p: int, stride: int, columns: int) -> Tensor:
    if columns == 0:
        return image.new_empty(*image.shape[:-1], 0)
    end = stride * (columns - 1) + 1
    total = image[..., 0:end:stride].clone(memory_format=torch.contiguous_format)
    for x in range(1, p):
        total += image[..., x : x + end : stride]
    return total


def _spread_columns(values: Tensor, p: int, stride: int, width: int) -> Tensor:
    columns = values.shape[-1]
    if stride == p and columns * p == width:
        return values.repeat_interleave(p, dim=-1)
    out = values.new_zeros(*values.shape[:-1], width)
    for x in range(p if columns else 0):
        out[..., x : x + stride * (columns - 1) + 1 : stride] += values
    return out


def _spread_rows(values: Tensor, p: int, stride: int, height: int) -> Tensor:
    out = values.new_zeros(*values.shape[:-2], height, values.shape[-1])
    for y in range(p if values.shape[-2] else 0):
        _rows(out, y, stride, values.shape[-2]).add_(values)
    return out
