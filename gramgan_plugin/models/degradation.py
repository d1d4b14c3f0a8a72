"""Make training pairs from GT by Real-ESRGAN's second-order degradation, on the device.

Wang, Xie, Dong, Shan: Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, 2021.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from basicsr.data.degradations import random_add_gaussian_noise_pt, random_add_poisson_noise_pt
from basicsr.data.transforms import paired_random_crop
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.img_process_util import filter2D
from torch import Tensor
from torch.nn.functional import interpolate

from gramgan_plugin.data.batch import KERNEL_KEYS
from gramgan_plugin.data.seeded import DEGRADATION_STREAM, seeded
from gramgan_plugin.errors import OptionError
from gramgan_plugin.functional.constants import unit_range
from gramgan_plugin.models.pair_queue import PairQueue
from gramgan_plugin.utils import distributed
from gramgan_plugin.utils.sections import section

QUEUE_SIZE = 180  # BasicSR's default


@dataclass(frozen=True)
class Round:
    """One of the two rounds: how it resizes images, adds noise and compresses them; docs/options.md has the meanings.

    Its random numbers come from the global generators of Python, numpy and torch, in BasicSR's order.
    """

    resize_prob: Sequence[float]
    resize_range: Sequence[float]
    gaussian_noise_prob: float
    noise_range: Sequence[float]
    poisson_scale_range: Sequence[float]
    gray_noise_prob: float
    jpeg_range: Sequence[float]

    def factor(self) -> float:
        """Draw the factor of a resize, the same for all images of a batch."""
        smallest, largest = self.resize_range
        direction = random.choices(("enlarge", "reduce", "keep"), self.resize_prob)[0]
        if direction == "keep":
            return 1.0
        return np.random.uniform(1, largest) if direction == "enlarge" else np.random.uniform(smallest, 1)

    def add_noise(self, image: Tensor) -> Tensor:
        """Add Gaussian or Poisson noise, gray or coloured, and clip to [0, 1]; strengths differ between images."""
        how = {"gray_prob": self.gray_noise_prob, "clip": True, "rounds": False}
        if np.random.uniform() < self.gaussian_noise_prob:
            noisy: Tensor = random_add_gaussian_noise_pt(image, sigma_range=self.noise_range, **how)
        else:
            noisy = random_add_poisson_noise_pt(image, scale_range=self.poisson_scale_range, **how)
        return noisy

    def qualities(self, image: Tensor) -> Tensor:
        """Draw a JPEG quality for each image."""
        return image.new_empty(len(image)).uniform_(*self.jpeg_range)


class Degradation:
    """Real-ESRGAN's degradation of a batch: ``degradation(gt, kernel1, kernel2, sinc_kernel) -> lq``.

    Blur, resize, noise and JPEG, twice; then a sinc filter, before the second JPEG or after it. With the same states of
    the global generators LQ is the same as in BasicSR's ``RealESRGANModel``.

    Args:
        opt: options; ``scale`` and the degradation's keys at the top are read.
        device: where images are.

    Raises:
        OptionError: if a key is missing.
    """

    def __init__(self, opt: Mapping[str, Any], device: torch.device) -> None:
        self.scale = int(_option(opt, "scale"))
        self.rounds = [
            Round(**{one.name: _option(opt, f"{one.name}{suffix}") for one in fields(Round)}) for suffix in ("", "2")
        ]
        self.second_blur_prob = _option(opt, "second_blur_prob")
        self.jpeg = DiffJPEG(differentiable=False).to(device)

    @torch.no_grad()
    def __call__(self, gt: Tensor, kernel1: Tensor, kernel2: Tensor, sinc_kernel: Tensor) -> Tensor:
        """Return LQ.

        Args:
            gt: (N, 3, H, W) in [0, 1]; H and W are multiples of the scale.
            kernel1: (N, K, K), K odd: the blur of the first round.
            kernel2: likewise, of the second round.
            sinc_kernel: likewise, the last filter.

        Returns:
            (N, 3, H / scale, W / scale): 8-bit levels divided by 255.
        """
        first, second = self.rounds
        height, width = (side // self.scale for side in gt.shape[-2:])
        image = _filter(gt, kernel1)
        image = interpolate(image, scale_factor=first.factor(), mode=_mode())
        image = self._compress(first.add_noise(image), first)
        if np.random.uniform() < self.second_blur_prob:
            image = _filter(image, kernel2)
        factor = second.factor()
        image = interpolate(image, size=(int(height * factor), int(width * factor)), mode=_mode())
        image = second.add_noise(image)
        sinc_first = np.random.uniform() < 0.5
        if not sinc_first:
            image = self._compress(image, second)
        image = _filter(interpolate(image, size=(height, width), mode=_mode()), sinc_kernel)
        if sinc_first:
            image = self._compress(image, second)
        return unit_range((image * 255).round().clamp(0, 255))

    def _compress(self, image: Tensor, one: Round) -> Tensor:
        qualities = one.qualities(image)
        compressed: Tensor = self.jpeg(image.clamp(0, 1), quality=qualities)
        return compressed


class DegradedPairs:
    """Makes the pairs of an iteration from a batch of BasicSR's ``RealESRGANDataset``: LQ, a crop, the exchange.

    LQ is made from sharpened GT, as in BasicSR's ``RealESRGANModel``. The random numbers are those of (manual_seed,
    number of the batch, rank); the global generators are left as they were.

    Args:
        opt: resolved options.
        device: where images are.

    Raises:
        OptionError: if a key is missing.
    """

    def __init__(self, opt: Mapping[str, Any], device: torch.device) -> None:
        self.device, self.seed, self.rank = device, int(opt.get("manual_seed") or 0), int(opt.get("rank") or 0)
        self.degradation, self.sharpen = Degradation(opt, device), USMSharp().to(device)
        self.gt_size = int(_option(opt, "gt_size"))
        self.queue = PairQueue(int(opt.get("queue_size") or QUEUE_SIZE), self.gt_size)
        self.batches = 0

    @classmethod
    def from_options(cls, opt: Mapping[str, Any], device: torch.device) -> "DegradedPairs | None":
        """Return what makes the pairs that the options ask for, or None if the data has LQ of its own."""
        kind = section(opt, "datasets", "train").get("type")
        return cls(opt, device) if kind == "RealESRGANDataset" or opt.get("resize_prob") is not None else None

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return (lq, gt), (N, 3, gt_size / scale, gt_size / scale) and (N, 3, gt_size, gt_size), in [0, 1].

        Args:
            batch: ``gt``, ``kernel1``, ``kernel2`` and ``sinc_kernel``, see ``Degradation``.
        """
        gt, kernels = batch["gt"], [batch[key] for key in KERNEL_KEYS]
        with seeded(self.seed, (DEGRADATION_STREAM, self.batches, self.rank), self.device):
            lq = self.degradation(self.sharpen(gt), *kernels)
            gt, lq = paired_random_crop(gt, lq, self.gt_size, self.degradation.scale)
            lq, gt = self.queue.exchange(lq, gt)
        self.batches += 1
        return lq.contiguous(), gt.contiguous()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches, and the queues of all processes by rank; every process must call this."""
        return {"batches": self.batches, "queues": distributed.gather_on_first(self.queue.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; a process that the saved run did not have begins with an empty queue.

        Raises:
            ValueError: if ``state`` is of another form.
        """
        batches, queues = state.get("batches"), state.get("queues")
        if not isinstance(batches, int) or batches < 0 or not isinstance(queues, list):
            raise ValueError("the state of the training pairs is damaged")
        self.batches = batches
        if self.rank < len(queues):
            self.queue.load_state_dict(section(queues[self.rank]), self.device)


def _filter(image: Tensor, kernel: Tensor) -> Tensor:
    # DiffJPEG's images are channels-last, which filter2D refuses with newer releases of torch.
    filtered: Tensor = filter2D(image.contiguous(), kernel)
    return filtered


def _mode() -> str:
    return random.choice(("area", "bilinear", "bicubic"))


def _option(opt: Mapping[str, Any], key: str) -> Any:
    if opt.get(key) is None:
        raise OptionError(f"{key}: missing; RealESRGANDataset has no LQ, and making it needs this")
    return opt[key]
