"""Encode sub-images: PNG, or BMP if reading speed matters more than disk space."""

from dataclasses import dataclass

import cv2

from gramgan_plugin.data.images import Image
from gramgan_plugin.errors import UserError

ENCODINGS = ("png", "fast")
# OpenCV before 4.12 has no such parameter, but its default is similar.
_FILTER = getattr(cv2, "IMWRITE_PNG_FILTER", None)
_NONE_SUB_UP = 8 | 16 | 32  # PNG's line filters that decode fast; the encoder takes the best one for each line


@dataclass(frozen=True)
class Encoding:
    """The file format of sub-images, and its compression.

    ``png`` without a level encodes only runs and leaves out the two slow line filters: compared with OpenCV's level 1,
    photos take half the time to encode and three quarters of the time to decode, and are at most 5 % larger. ``fast``
    is BMP: 24 bits a pixel, which ``cv2.imdecode`` only copies.

    Args:
        name: ``png`` or ``fast``.
        level: deflate level of ``png``, 0 to 9; None as above.
        all_filters: let OpenCV choose the line filters, as BasicSR's scripts do.

    Raises:
        UserError: for another name or level.
    """

    name: str = "png"
    level: int | None = None
    all_filters: bool = False

    def __post_init__(self) -> None:
        if self.name not in ENCODINGS:
            raise UserError(f"encoding {self.name!r}: must be one of {', '.join(ENCODINGS)}")
        if self.level is not None and not 0 <= self.level <= 9:
            raise UserError(f"compression level {self.level}: must be from 0 to 9")
        if self.level is not None and self.name == "fast":
            raise UserError("compression level: 'fast' is not compressed; leave one of the two out")

    @property
    def level_in_meta_info(self) -> int:
        """The level to write to ``meta_info.txt``; readers ignore it."""
        if self.name == "fast":
            return 0
        return 1 if self.level is None else self.level

    def encode(self, image: Image) -> bytes:
        """Return the file's bytes.

        Args:
            image: (H, W, 3) BGR.
        """
        suffix = ".bmp" if self.name == "fast" else ".png"
        ok, data = cv2.imencode(suffix, image, self._parameters())
        if not ok:
            raise RuntimeError(f"OpenCV could not encode an image of {image.shape} as {suffix}")
        return data.tobytes()

    def _parameters(self) -> list[int]:
        if self.name == "fast":
            return []
        parameters = [cv2.IMWRITE_PNG_COMPRESSION, self.level_in_meta_info]
        if self.level is None:
            parameters += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        if not self.all_filters and _FILTER is not None:
            parameters += [_FILTER, _NONE_SUB_UP]
        return parameters
