"""Choose the most detailed sub-images, and draw what stays and what goes.

Of a photo's sub-images many are sky, wall or blur, from which a network learns little.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.images import Image, encode_png
from gramgan_plugin.utils.pictures import write_line

MEASURE = "mean absolute gradient of luma"
COLUMNS, ROWS = 12, 4  # of what stays, and of what goes, in the picture
CELL, GAP, HEAD, PAPER = 96, 4, 26, 215


def detail(image: Image) -> float:
    """Return the mean absolute difference of neighbours in luma, over both directions, in levels of 255.

    Args:
        image: (H, W, 3) BGR, at least 2x2.

    >>> detail(np.zeros((4, 4, 3), np.uint8))
    0.0
    """
    luma = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2GRAY)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()) / 2


@dataclass(frozen=True)
class Selection:
    """Which sub-images stay.

    Attributes:
        details: the detail of each sub-image, by key.
        kept: the keys of those that stay.
    """

    details: Mapping[str, float]
    kept: frozenset[str]

    @property
    def least(self) -> float:
        """The least detail of what stays."""
        return min(self.details[key] for key in self.kept)

    def ranked(self) -> list[str]:
        """Return all keys, the most detailed first."""
        return sorted(self.details, key=lambda key: (-self.details[key], key))

    def examples(self) -> dict[str, bool]:
        """Return key -> whether it stays, of what the picture shows: as many of both, evenly over the ranks."""
        ranked, number = self.ranked(), len(self.kept)
        found: dict[str, bool] = {}
        for part, stays in ((ranked[:number], True), (ranked[number:], False)):
            shown = min(len(part), COLUMNS * ROWS)
            found |= {part[place]: stays for place in np.linspace(0, len(part) - 1, shown).round().astype(int).tolist()}
        return found


def select(details: Mapping[str, float], share: float) -> Selection:
    """Keep the most detailed sub-images; of equal ones the first.

    Args:
        details: of each sub-image, by key; at least one.
        share: how many stay, in (0, 1]; at least one does.

    >>> sorted(select({"a": 1.0, "b": 3.0, "c": 2.0}, 0.67).kept)
    ['b', 'c']
    """
    whole = Selection(details, frozenset())
    return Selection(details, frozenset(whole.ranked()[: max(1, round(share * len(details)))]))


def draw_selection(selection: Selection, images: Mapping[str, Image]) -> NDArray[np.uint8]:
    """Draw examples of what stays above examples of what goes, each from the most detailed to the least.

    Args:
        selection: the selection.
        images: those of ``selection.examples()``, BGR; others are left out.
    """
    examples = selection.examples()
    counts = {True: len(selection.kept), False: len(selection.details) - len(selection.kept)}
    parts = []
    for stays, word in ((True, "stay"), (False, "go")):
        keys = [key for key, is_kept in examples.items() if is_kept == stays and key in images]
        head = np.full((HEAD, COLUMNS * (CELL + GAP), 3), PAPER, np.uint8)
        values = [selection.details[key] for key in keys]
        span = f", detail {max(values):.1f} to {min(values):.1f}" if values else ""
        text = f"{counts[stays]} of {len(selection.details)} sub-images {word}{span}"
        write_line(head, text, 6, 18)
        parts.append(head)
        for first in range(0, len(keys), COLUMNS):
            row = np.full((CELL + GAP, COLUMNS * (CELL + GAP), 3), PAPER, np.uint8)
            for place, key in enumerate(keys[first : first + COLUMNS]):
                left = place * (CELL + GAP)
                row[:CELL, left : left + CELL] = cv2.resize(images[key], (CELL, CELL), interpolation=cv2.INTER_AREA)
            parts.append(row)
    return np.concatenate(parts)


def save_selection(selection: Selection, images: Mapping[str, Image], path: Path) -> None:
    """Write the picture of `draw_selection` as PNG."""
    path.write_bytes(encode_png(draw_selection(selection, images), 6))
