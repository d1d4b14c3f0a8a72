"""Cache the decoded images of a small training set in memory that the loading processes share."""

import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.data.images import Image
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.system import available_memory

SHARE_OF_MEMORY = 0.8  # of the available memory; the rest is for batches and the model


class ImageSizeError(Exception):
    """A decoded image does not have its listed size."""


class ImageCache:
    """A cache of images by number, each decoded at its first use.

    The memory is mapped at construction and shared with all processes forked afterwards, so each image is decoded by
    one of them for all. A spawned process (Windows, macOS) has its own cache.

    Args:
        sizes: (height, width) of each image.

    Raises:
        UserError: if the images need more memory than is available. The message has both numbers.

    Example:
        >>> cache = ImageCache([(2, 3), (1, 1)])
        >>> cache.image(1, lambda: np.full((1, 1, 3), 7, np.uint8)).tolist()
        [[[7, 7, 7]]]
        >>> cache.image(1, lambda: 1 / 0).tolist()  # not decoded again
        [[[7, 7, 7]]]
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        self._sizes = np.asarray(sizes, np.int64).reshape(-1, 2)
        self._ends = np.cumsum(3 * self._sizes.prod(axis=1))
        self._memory: NDArray[np.uint8] | None = None
        self._refuse_too_large()
        self._map()

    @property
    def size_in_bytes(self) -> int:
        """The size of all images, decoded."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def image(self, number: int, decode: Callable[[], Image]) -> Image:
        """Return an image, read-only; call ``decode`` if it is not cached yet.

        Raises:
            ImageSizeError: if the decoded image does not have its listed size.
        """
        memory = self._memory if self._memory is not None else self._map()
        height, width = (int(side) for side in self._sizes[number])
        end = int(self._ends[number])
        place = memory[end - 3 * height * width : end].reshape(height, width, 3)
        done = self.size_in_bytes + number
        if not memory[done]:
            image = decode()
            if image.shape != place.shape:
                raise ImageSizeError(f"is {image.shape[1]}x{image.shape[0]}, listed as {width}x{height}")
            place[:] = image
            memory[done] = 1  # last, so that other processes see a complete image
        place.flags.writeable = False
        return place

    def _map(self) -> NDArray[np.uint8]:
        """Map anonymous memory, which /dev/shm (small in containers) does not limit. Flags follow the images."""
        self._memory = np.frombuffer(mmap.mmap(-1, max(1, self.size_in_bytes + len(self._sizes))), np.uint8)
        return self._memory

    def _refuse_too_large(self) -> None:
        together = os.environ.get("LOCAL_WORLD_SIZE", "1")
        available, processes = available_memory(), int(together) if together.isdecimal() else 1
        needed = self.size_in_bytes * processes
        if available is not None and needed > SHARE_OF_MEMORY * available:
            each = f", {processes} processes together" if processes > 1 else ""
            raise UserError(
                f"the decoded images take {needed / 1e9:.1f} GB{each}, {available / 1e9:.1f} GB of memory are free; "
                "leave the cache out"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": None}
