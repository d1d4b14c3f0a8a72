"""Group pictures into batches of one size, and upscale a batch: its colours, and its transparency."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.errors import UserError
from gramgan_plugin.inference.picture_files import Picture, Samples
from gramgan_plugin.inference.resize import scaled_size
from gramgan_plugin.utils.system import available_memory

Upscale = Callable[[list[Samples]], list[Samples]]

ALPHA_METHODS = ("network", "bicubic")
MOST_IN_BATCH = 2**22  # pixels; larger pictures occupy the processor by themselves
COPIES = 3  # of a result that exist at once: the network's, the array, the encoder's


class HasPicture(Protocol):
    """Anything with a picture, or None in its place."""

    @property
    def picture(self) -> Picture | None:
        """The picture."""
        ...


Item = TypeVar("Item", bound=HasPicture)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Group items whose pictures have one size, one type and the same number of channels.

    An incomplete group is given out when twice ``size`` items wait, so few are in memory.

    Args:
        items: those without a picture are given out at once.
        size: items of a batch, at most; fewer if they have more than ``MOST_IN_BATCH`` pixels together.
    """
    waiting: dict[tuple[tuple[int, ...], str], list[Item]] = {}
    for item in items:
        if item.picture is None:
            yield [item]
            continue
        pixels = item.picture.pixels
        key = (pixels.shape, pixels.dtype.name)
        group = waiting.setdefault(key, [])
        group.append(item)
        if len(group) >= min(size, MOST_IN_BATCH // pixels[..., 0].size):
            yield waiting.pop(key)
        elif sum(map(len, waiting.values())) >= 2 * size:
            yield waiting.pop(next(iter(waiting)))  # the one that waits longest
    yield from waiting.values()


def upscale_pictures(pictures: Sequence[Picture], upscale: Upscale, scale: float, alpha: str) -> list[Picture]:
    """Upscale pictures of one size, one type and the same number of channels.

    Args:
        pictures: the pictures; colours of transparent pixels have been filled.
        upscale: takes and returns lists of (H, W, 1) or (H, W, 3) arrays.
        scale: what it multiplies both sides by.
        alpha: one of ``ALPHA_METHODS``: what upscales transparency.

    Returns:
        The results, with the profile and metadata of the pictures.

    Raises:
        UserError: if the memory does not suffice.
        RuntimeError: if ``upscale`` returns other shapes or types than promised.
    """
    needed, free = round(scale**2 * sum(map(memory_of, pictures))), available_memory()
    if free is not None and needed > free:
        height, width = pictures[0].pixels.shape[:2]
        raise UserError(
            f"{width}x{height} pixels, {scale:g} times as large, need about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free; cut it into parts, or close other programs"
        )
    colours = upscale_exactly(upscale, [picture.pixels for picture in pictures], scale)
    alphas = iter(_alphas([picture.alpha for picture in pictures if picture.alpha is not None], upscale, scale, alpha))
    return [
        replace(picture, pixels=pixels, alpha=None if picture.alpha is None else next(alphas))
        for picture, pixels in zip(pictures, colours, strict=True)
    ]


def upscale_exactly(upscale: Upscale, arrays: list[Samples], scale: float) -> list[Samples]:
    """Call ``upscale``, and check what it returns.

    Raises:
        RuntimeError: if a result is not ``scale`` times as large, or of another type.
    """
    results = upscale(arrays)
    for given, result in zip(arrays, results, strict=True):
        channels = given.shape[2]
        if result.shape != (*scaled_size(given.shape, scale), channels) or result.dtype != given.dtype:
            raise RuntimeError(
                f"{given.shape} {given.dtype} became {result.shape} {result.dtype}, not {scale:g} times it"
            )
    return results


def memory_of(picture: Picture) -> int:
    """Return the bytes that a result takes until it is written."""
    return COPIES * (picture.pixels.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes))


def _flat(alpha: Samples, size: tuple[int, int]) -> tuple[NDArray[np.bool_], Samples]:
    """Return where alpha is the same within two pixels, and its values, both repeated to (width, height)."""
    square = np.ones((5, 5), np.uint8)
    flat = cv2.erode(alpha, square) == cv2.dilate(alpha, square)
    large = [cv2.resize(x, size, interpolation=cv2.INTER_NEAREST_EXACT) for x in (flat.astype(np.uint8), alpha)]
    return large[0].astype(bool), large[1].astype(alpha.dtype)


def _alphas(alphas: Sequence[Samples], upscale: Upscale, scale: float, method: str) -> list[Samples]:
    """Upscale (H, W) arrays; where alpha is the same everywhere it stays so exactly."""
    results: list[Samples] = []
    for alpha in alphas:
        height, width = scaled_size(alpha.shape, scale)
        if alpha.min() == alpha.max():
            results.append(np.full((height, width), alpha.flat[0], alpha.dtype))
        elif method == "network":
            result = upscale_exactly(upscale, [alpha[..., None]], scale)[0][..., 0]
            results.append(np.where(*_flat(alpha, (width, height)), result))
        else:
            results.append(cv2.resize(alpha, (width, height), interpolation=cv2.INTER_CUBIC).astype(alpha.dtype))
    return results
