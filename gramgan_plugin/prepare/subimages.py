"""Compute the windows of a photo's sub-images, as BasicSR's ``extract_subimages``."""

from typing import NamedTuple

from gramgan_plugin.errors import UserError


class Window(NamedTuple):
    """A square of a photo, in GT pixels."""

    x: int
    y: int
    size: int


def check_grid(crop_size: int, step: int, thresh_size: int, scale: int) -> None:
    """Refuse a grid whose windows would not fall on whole LQ pixels.

    Raises:
        UserError: if a number is out of range, or the size or step is not a multiple of the scale.
    """
    for name, value, least in (
        ("scale", scale, 2),
        ("crop size", crop_size, 1),
        ("step", step, 1),
        ("thresh size", thresh_size, 0),
    ):
        if value < least:
            raise UserError(f"{name} {value}: must be at least {least}")
    for name, value in (("crop size", crop_size), ("step", step)):
        if value % scale:
            near = max(value // scale, 1) * scale
            raise UserError(f"{name} {value}: not a multiple of the scale {scale}; take {near} or {near + scale}")


def offsets(length: int, crop_size: int, step: int, thresh_size: int) -> list[int]:
    """Return where windows start along one side of a photo.

    Windows start every ``step`` pixels while they fit; if more than ``thresh_size`` pixels remain after the last one,
    another window ends at the border.

    Args:
        length: pixels of the side.
        crop_size: pixels of a window.
        step: pixels from one window to the next.
        thresh_size: how many pixels at the far border may stay unused.

    Returns:
        Ascending offsets; empty if the side is shorter than a window.

    Example:
        >>> offsets(1000, 480, 240, 0)
        [0, 240, 480, 520]
    """
    if length < crop_size:
        return []
    last_fit = length - crop_size
    begins = list(range(0, last_fit + 1, step))
    if last_fit - begins[-1] > thresh_size:
        begins.append(last_fit)
    return begins


def windows(width: int, height: int, crop_size: int, step: int, thresh_size: int, scale: int) -> list[Window]:
    """Return the sub-images of a photo, row by row, on the photo mod-cropped to the scale.

    All offsets are multiples of the scale, so that each window has a window of LQ.

    Args:
        width: pixels of the photo, before the mod-crop.
        height: the same.
        crop_size: side of a sub-image, a multiple of ``scale``.
        step: a multiple of ``scale``.
        thresh_size: see :func:`offsets`.
        scale: factor between GT and LQ.

    Raises:
        UserError: see :func:`check_grid`.
    """
    check_grid(crop_size, step, thresh_size, scale)
    columns = offsets(width - width % scale, crop_size, step, thresh_size)
    rows = offsets(height - height % scale, crop_size, step, thresh_size)
    return [Window(x, y, crop_size) for y in rows for x in columns]


def thinned(places: list[Window], most: int | None) -> list[Window]:
    """Return at most ``most`` of a photo's windows, evenly spread; all of them for None.

    Without a limit, a large photo outweighs many small ones.

    Example:
        >>> thinned(windows(960, 192, 192, 192, 0, 4), 2)
        [Window(x=0, y=0, size=192), Window(x=384, y=0, size=192)]
    """
    if most is None or len(places) <= most:
        return places
    return [places[number * len(places) // most] for number in range(most)]


def count_windows(sizes: list[tuple[int, int]], crop_size: int, step: int, thresh_size: int, scale: int) -> int:
    """Return the number of sub-images of photos with these (width, height).

    Example:
        >>> count_windows([(2040, 1356)], 192, 240, 0, 4)  # a photo of DIV2K: 9 columns, 6 rows
        54
    """
    return sum(len(windows(width, height, crop_size, step, thresh_size, scale)) for width, height in sizes)
