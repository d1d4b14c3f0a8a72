"""The exponential moving average of a network's weights."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def move_average(average: nn.Module, net: nn.Module, decay: float, found_inf: Tensor | float = 0.0) -> None:
    """Move averaged weights towards a network's: ``average + (1 - decay) (net - average)``; copy buffers.

    Args:
        average: changed in place.
        net: of the same class.
        decay: the share of the average that stays.
        found_inf: 1 after a skipped iteration, in which the average stays as it is; else 0.
    """
    own: list[Tensor] = [p for p in average.parameters() if p.is_floating_point()]
    current = [p.detach() for p in net.parameters() if p.is_floating_point()]
    difference = list(torch._foreach_sub(current, own))
    torch._foreach_mul_(difference, (1.0 - found_inf) * (1.0 - decay))
    torch._foreach_add_(own, difference)
    for buffer, its_own in zip(average.buffers(), net.buffers(), strict=True):
        buffer.copy_(its_own)
