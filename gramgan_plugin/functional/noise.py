"""Draw noise for a batch that depends on the seed and each sample's place alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def sample_noise(like: Tensor, seed: Sequence[int], first_index: int = 0, stride: int = 1) -> Tensor:
    """Return Gaussian noise of deviation 1, drawn on the device.

    The numbers of sample i depend only on ``(*seed, first_index + stride * i)`` and the type of device: they are the
    same for a whole batch, for its parts, and over several processes.

    Args:
        like: (N, ...); the result has its shape and type.
        seed: non-negative integers, for example (manual_seed, iteration).
        first_index: the index of the first sample in the global batch.
        stride: the distance from one sample to the next in the global batch.

    Example:
        >>> images = torch.zeros(4, 3, 2, 2)
        >>> whole = sample_noise(images, seed=(0, 7))
        >>> bool((sample_noise(images[2:], seed=(0, 7), first_index=2) == whole[2:]).all())
        True
    """
    noise = torch.empty_like(like)
    for number, sample in enumerate(noise):
        state = np.random.SeedSequence([*seed, first_index + stride * number]).generate_state(1, np.uint64)
        sample.normal_(generator=torch.Generator(like.device).manual_seed(int(state[0]) >> 1))
    return noise
