"""Enlarge images by a model, whole or in tiles if memory is short, or by bicubic."""

import gc
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gramgan_plugin.errors import UserError, is_out_of_memory
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.utils.text import first_line

logger = logging.getLogger("basicsr")

# LQ pixels around a tile that are enlarged with it and then removed.
CONTEXT = 32
SMALLEST_TILE = 32


class ModelEnlarger:
    """Enlarges single images by a BasicSR model's ``feed_data`` and ``test``.

    If an image does not fit into memory, it and all later ones are enlarged in tiles, which are halved until they fit.

    Args:
        model: any BasicSR model.
        tile: side of the tiles in LQ pixels; 0: whole images only; None: whole images while they fit into memory.
    """

    def __init__(self, model: Any, tile: int | None = None) -> None:
        self.model = model
        self.tile = tile
        self.may_tile = tile is None

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        """Enlarge one image.

        Args:
            batch: ``lq``, (1, C, h, w) in [0, 1], and other keys that the model reads.

        Returns:
            (1, C, H, W); on the CPU if it was enlarged in tiles.

        Raises:
            UserError: if memory runs out even with the smallest tiles.
        """
        height, width = batch["lq"].shape[-2:]
        while True:
            try:
                if not self.tile or max(height, width) <= self.tile or batch["lq"].ndim != 4:
                    return self._whole(batch)
                return in_tiles(lambda lq: self._whole({"lq": lq}), batch["lq"], self.tile)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = first_line(error)
            # Outside of `except`: the error keeps the tensors of the failed call alive.
            self._use_smaller_tiles(height, width, message)

    def _whole(self, batch: dict[str, Any]) -> Tensor:
        self.model.feed_data(batch)
        self.model.test()
        result: Tensor = self.model.get_current_visuals()["result"]
        return result

    def _use_smaller_tiles(self, height: int, width: int, message: str) -> None:
        self.model.output = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        side = min(self.tile or max(height, width), max(height, width))
        smaller = 1 << (side - 1).bit_length() - 1  # the power of two below
        if not self.may_tile or smaller < SMALLEST_TILE:
            advice = "leave out val.tile, or make it smaller" if not self.may_tile else "close other programs"
            raise UserError(
                f"val.tile: out of memory while enlarging an image of {width}x{height} for validation or a test "
                f"({message}); {advice}; training is not affected"
            )
        logger.warning(
            f"Out of memory while enlarging an image of {width}x{height}: images larger than {smaller} pixels are now "
            f"enlarged in tiles (val.tile: {smaller} does so from the start)"
        )
        self.tile = smaller


def in_tiles(enlarge: Callable[[Tensor], Tensor], lq: Tensor, tile: int, context: int = CONTEXT) -> Tensor:
    """Enlarge an image tile by tile, each with some context around it.

    Args:
        enlarge: maps (1, C, h, w) to (1, C, s h, s w) with a whole number s.
        lq: (1, C, h, w).
        tile: side of a tile without its context.
        context: pixels around the tile that are enlarged with it, inside the image.

    Returns:
        (1, C, s h, s w), on the CPU.
    """
    height, width = lq.shape[-2:]
    result: Tensor | None = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            y, x = max(top - context, 0), max(left - context, 0)
            sr = enlarge(lq[..., y : bottom + context, x : right + context])
            s = sr.shape[-2] // (min(bottom + context, height) - y)
            if result is None:
                result = sr.new_empty((*sr.shape[:-2], height * s, width * s), device="cpu")
            part = sr[..., (top - y) * s : (bottom - y) * s, (left - x) * s : (right - x) * s]
            result[..., top * s : bottom * s, left * s : right * s] = part
    assert result is not None
    return result


def bicubic_enlarger(scale: int) -> Callable[[dict[str, Any]], Tensor]:
    """Return a function that enlarges a batch by MATLAB bicubic, the baseline of every table."""
    return lambda batch: matlab_bicubic(batch["lq"], up=scale)
