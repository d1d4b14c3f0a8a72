"""Draw pictures to compare results by eye."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

Image = np.ndarray[Any, Any]

LABEL_HEIGHT = 28
GAP = 4


def side_by_side(images: Mapping[str, Image], *, crop: int = 160, zoom: int = 2) -> Image:
    """Draw the same crop of several versions of a photo side by side, each under its label.

    The crop is where the last image (put GT last) has the most detail, where differences are visible.

    Args:
        images: label -> (H, W, 3) uint8 BGR, all of one size.
        crop: side of the crop in pixels; smaller if the image is.
        zoom: whole-number enlargement by repeating pixels.

    Returns:
        (height, width, 3) uint8 BGR.

    Raises:
        ValueError: if ``images`` is empty or their sizes differ.
    """
    _check_one_size(images)
    window = detailed_window(list(images.values())[-1], crop)
    return labelled({label: image[window] for label, image in images.items()}, zoom=zoom)


def labelled(images: Mapping[str, Image], *, zoom: int = 2, columns: int | None = None) -> Image:
    """Draw images of one size in rows, each under its label.

    Args:
        images: label -> (H, W, 3) uint8 BGR, all of one size.
        zoom: whole-number enlargement by repeating pixels.
        columns: images in a row; all of them if None.

    Returns:
        (height, width, 3) uint8 BGR.

    Raises:
        ValueError: if ``images`` is empty or their sizes differ.
    """
    _check_one_size(images)
    panels = [_panel(label, image, zoom) for label, image in images.items()]
    columns = min(columns or len(panels), len(panels))
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
    rows = [_with_gaps(panels[i : i + columns], axis=1) for i in range(0, len(panels), columns)]
    return _with_gaps(rows, axis=0)


def detailed_window(image: Image, crop: int) -> tuple[slice, slice]:
    """Return the rows and columns of the window with the largest sum of absolute Laplacians.

    Args:
        image: (H, W, 3) uint8 BGR.
        crop: side of the window in pixels; smaller if the image is.
    """
    height, width = min(crop, image.shape[0]), min(crop, image.shape[1])
    detail = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32), cv2.CV_32F))
    total = cv2.integral(detail)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = (int(place) for place in np.unravel_index(int(np.argmax(sums)), sums.shape))
    return slice(top, top + height), slice(left, left + width)


def zoomed(image: Image, zoom: int) -> Image:
    """Enlarge a whole number of times by repeating pixels: (H, W, 3) -> (H * zoom, W * zoom, 3)."""
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)


def write_line(picture: Image, text: str, x: int, y: int, size: float = 0.5) -> None:
    """Write a line of text into a picture; OpenCV's font has only ASCII characters.

    Args:
        picture: (H, W, 3) uint8, which is changed.
        text: the line; other characters become question marks.
        x: left end of the base line, in pixels.
        y: its height.
        size: of the font; 0.5 is 11 pixels high.
    """
    line = text.encode("ascii", "replace").decode()
    cv2.putText(picture, line, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)


def _check_one_size(images: Mapping[str, Image]) -> None:
    shapes = {image.shape for image in images.values()}
    if len(shapes) != 1:
        raise ValueError(f"expected images of one size, got {sorted(shapes) or 'none'}")


def _panel(label: str, image: Image, zoom: int) -> Image:
    image = zoomed(image, zoom)
    strip = np.full((LABEL_HEIGHT, image.shape[1], 3), 255, np.uint8)
    write_line(strip, label, 4, 20)
    return np.vstack([strip, image])


def _with_gaps(images: Sequence[Image], axis: int) -> Image:
    shape = list(images[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, gap)][:-1], axis=axis)
