"""How sub-images are stored: PNG, or BMP where reading speed counts more than disk space."""

from dataclasses import dataclass

import cv2

from gramgan_plugin.data.images import Image
from gramgan_plugin.errors import UserError

ENCODINGS = ("png", "fast")
# What OpenCV before 4.12 cannot be told it does much like this on its own.
_FILTER = getattr(cv2, "IMWRITE_PNG_FILTER", None)
_NONE_SUB_UP = 8 | 16 | 32  # of PNG's line filters those that are quick to undo; the best is taken for each line


@dataclass(frozen=True)
class Encoding:
    """The file format of sub-images, and how hard its encoder tries.

    ``png`` without a level looks for runs only and leaves the two costly line filters out: on photos it is encoded
    in half the time and decoded in three quarters of the time that OpenCV's level 1 takes, and is up to 5 % larger.
    ``fast`` is BMP: 24 bits a pixel as they are, which ``cv2.imdecode`` only has to copy.

    Args:
        name: ``png`` or ``fast``.
        level: of deflate, 0 to 9, for ``png``; None as above.
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
        """The number that ``meta_info.txt`` gives for it; readers ignore it."""
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
