"""Pictures to compare results by eye."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

Image = np.ndarray[Any, Any]

LABEL_HEIGHT = 28
GAP = 4


def side_by_side(images: Mapping[str, Image], *, crop: int = 160, zoom: int = 2) -> Image:
    """The same crop of several versions of a photo, side by side, with its label above each.

    The crop is where the last image (put GT last) has the most detail, so that there is something to see.

    Args:
        images: label -> (H, W, 3) uint8 BGR, all of one size.
        crop: side of the crop in pixels, cut to the image.
        zoom: whole-number enlargement by repeating pixels.

    Returns:
        (height, width, 3) uint8 BGR.

    Raises:
        ValueError: if there is no image or their sizes differ.
    """
    shapes = {image.shape for image in images.values()}
    if len(shapes) != 1:
        raise ValueError(f"expected images of one size, got {sorted(shapes) or 'none'}")
    height, width = min(crop, next(iter(shapes))[0]), min(crop, next(iter(shapes))[1])
    top, left = _most_detailed(list(images.values())[-1], height, width)
    columns = []
    for label, image in images.items():
        cut = image[top : top + height, left : left + width]
        cut = cut.repeat(zoom, axis=0).repeat(zoom, axis=1)
        strip = np.full((LABEL_HEIGHT, cut.shape[1], 3), 255, np.uint8)
        # OpenCV's font has ASCII only.
        text = label.encode("ascii", "replace").decode()
        cv2.putText(strip, text, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        columns += [np.vstack([strip, cut]), np.full((LABEL_HEIGHT + cut.shape[0], GAP, 3), 255, np.uint8)]
    return np.hstack(columns[:-1])


def _most_detailed(image: Image, height: int, width: int) -> tuple[int, int]:
    """The top left corner of the window with the largest sum of absolute Laplacians."""
    detail = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32), cv2.CV_32F))
    total = cv2.integral(detail)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(top), int(left)
