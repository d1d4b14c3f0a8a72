"""A queue of training pairs, so that the pairs of a batch were not all degraded alike."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gramgan_plugin.errors import OptionError
from gramgan_plugin.functional.constants import unit_range

logger = logging.getLogger("basicsr")


class PairQueue:
    """The training pair pool of Real-ESRGAN (Wang et al. 2021): each batch is exchanged for pairs of earlier ones.

    Images are kept as bytes on their device, a quarter of the memory of floats.

    Args:
        size: pairs that it holds; a multiple of the batch size.
        crop: side of the pairs' GT.
    """

    def __init__(self, size: int, crop: int) -> None:
        self.size, self.crop = size, crop
        self.images: dict[str, Tensor] = {}  # lq and gt, (n, C, H, W) levels

    def exchange(self, lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        """Put a batch in and return as many pairs drawn at random; the same batch as long as the queue is not full.

        The order is drawn from torch's global generator of the CPU.

        Args:
            lq: (N, C, h, w) in [0, 1], 8-bit levels divided by 255.
            gt: (N, C, H, W), likewise.

        Raises:
            OptionError: if the size is not a multiple of N.
        """
        count, fed = len(lq), {"lq": _levels(lq), "gt": _levels(gt)}
        if self.size % count:
            raise OptionError(f"queue_size: {self.size} is not a multiple of the batch size {count}")
        if not self.images:
            self.images = {name: new[:0] for name, new in fed.items()}
        if len(self.images["lq"]) < self.size:
            self.images = {name: torch.cat([old, fed[name]])[: self.size] for name, old in self.images.items()}
            return lq, gt
        order = torch.randperm(self.size)
        self.images = {name: old[order.to(old.device)] for name, old in self.images.items()}
        drawn = unit_range(self.images["lq"][:count]), unit_range(self.images["gt"][:count])
        for name, new in fed.items():
            self.images[name][:count] = new
        return drawn

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pairs, in their order."""
        return {name: images.cpu() for name, images in self.images.items()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the pairs; with a warning none, if ``gt_size`` has changed.

        Args:
            state: of ``state_dict``.
            device: where the pairs are kept.

        Raises:
            ValueError: if ``state`` is of another form.
        """
        if not state:
            return
        images: dict[str, Any] = {name: state.get(name) for name in ("lq", "gt")}
        if not all(isinstance(one, Tensor) and one.ndim == 4 and one.dtype == torch.uint8 for one in images.values()):
            raise ValueError("the queue of training pairs does not hold images")
        if len(images["lq"]) != len(images["gt"]):
            raise ValueError("the queue of training pairs does not hold pairs")
        if images["gt"].shape[-1] != self.crop:
            logger.warning(f"The queue of training pairs is filled anew: gt_size is {self.crop} now")
            return
        self.images = {name: one[: self.size].to(device) for name, one in images.items()}


def _levels(image: Tensor) -> Tensor:
    return (image * 255).round().byte()
