"""Pad images to sides that a network accepts."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

# RRDBNet's PixelUnshuffle: at scale 2 and 1 it works on LQ that is 2 and 4 times smaller.
UNSHUFFLED = {2: 2, 1: 4}


def side_multiple(net: nn.Module) -> int:
    """Return the number that the sides of a network's input must be multiples of.

    Args:
        net: it or its modules declare the number as ``window_size`` or ``downsample`` (SwinIR's attention windows);
            RRDBNet by its ``scale``, MMagic's by its ``upscale_factor``.

    >>> side_multiple(nn.Identity())
    1
    """
    if type(net).__name__ == "RRDBNet":
        return UNSHUFFLED.get(getattr(net, "scale", getattr(net, "upscale_factor", 4)), 1)
    multiple = 1
    for module in net.modules():
        for name in ("window_size", "downsample"):
            declared = getattr(module, name, None)
            sides = declared if isinstance(declared, list | tuple) else [declared]
            if all(type(side) is int and side > 0 for side in sides):
                multiple = math.lcm(multiple, *sides)
    return multiple


def pad_to_multiple(image: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Pad an image at its right and lower side by reflection, as far as it reaches, and then by its edge.

    Args:
        image: (N, C, H, W).
        multiple: the sides of the result are multiples of it.
        least: they are at least this.

    Returns:
        (N, C, H', W'), H' and W' the smallest such multiples.
    """
    sides = image.shape[-2:]
    missing = [max(side, least) - side + -max(side, least) % multiple for side in sides]
    down, right = (min(count, side - 1) for count, side in zip(missing, sides, strict=True))
    image = F.pad(image, (0, right, 0, down), "reflect")
    return F.pad(image, (0, missing[1] - right, 0, missing[0] - down), "replicate")
