"""The grids and the data sets that papers name, and what they are known to give."""

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
        photos: how many there are.
        sub_images: how many sub-images all of them give, by preset, where that is published or follows from it.
    """

    title: str
    photos: int
    sub_images: Mapping[str, int]


# 44,226 sub-images of 192 pixels are what Gram-GAN's authors trained on (Song et al., Sensors 2023, 23(4), 2098).
# They do not give the step; that it was 240 is inferred from the count. 32,592 is what BasicSR states for its script.
PRESETS = {"paper": Preset(192, 240, 0), "esrgan": Preset(480, 240, 0)}
KNOWN_SETS = {
    "div2k": KnownSet("DIV2K", 800, {"paper": 44_226, "esrgan": 32_592}),
    "flickr2k": KnownSet("Flickr2K", 2650, {}),
    "df2k": KnownSet("DF2K (DIV2K and Flickr2K)", 3450, {}),
}


def preset_of(grid: Preset) -> str | None:
    """Return the name of the preset that has these numbers.

    Example:
        >>> preset_of(Preset(480, 240, 0))
        'esrgan'
    """
    return next((name for name, preset in PRESETS.items() if preset == grid), None)


def expected_sub_images(form: str, grid: Preset) -> int | None:
    """Return how many sub-images a known set is expected to give; None where nobody has published it.

    Example:
        >>> expected_sub_images("div2k", PRESETS["paper"])
        44226
    """
    known = KNOWN_SETS.get(form)
    return None if known is None else known.sub_images.get(preset_of(grid) or "")
