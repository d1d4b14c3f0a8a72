"""The grids and data sets of papers, and their known numbers of sub-images."""

from collections.abc import Mapping
from typing import NamedTuple


class Preset(NamedTuple):
    """A grid of sub-images, in GT pixels."""

    crop_size: int
    step: int
    thresh_size: int


class KnownSet(NamedTuple):
    """A published set of photos.

    Attributes:
        title: its name.
        photos: number of photos.
        sub_images: total number of sub-images, by preset, where it is published or can be derived.
    """

    title: str
    photos: int
    sub_images: Mapping[str, int]


# 44,226 sub-images of 192 pixels are what Gram-GAN's authors trained on (Song et al., Sensors 2023, 23(4), 2098).
# They do not give the step; 240 is inferred from the count. BasicSR states 32,592 for its script.
PRESETS = {"paper": Preset(192, 240, 0), "esrgan": Preset(480, 240, 0)}
KNOWN_SETS = {
    "div2k": KnownSet("DIV2K", 800, {"paper": 44_226, "esrgan": 32_592}),
    "flickr2k": KnownSet("Flickr2K", 2650, {}),
    "df2k": KnownSet("DF2K (DIV2K and Flickr2K)", 3450, {}),
}


def preset_of(grid: Preset) -> str | None:
    """Return the name of the preset with this grid, or None.

    Example:
        >>> preset_of(Preset(480, 240, 0))
        'esrgan'
    """
    return next((name for name, preset in PRESETS.items() if preset == grid), None)


def expected_sub_images(form: str, grid: Preset) -> int | None:
    """Return the known number of sub-images of a data set; None if it is not published.

    Example:
        >>> expected_sub_images("div2k", PRESETS["paper"])
        44226
    """
    known = KNOWN_SETS.get(form)
    return None if known is None else known.sub_images.get(preset_of(grid) or "")
