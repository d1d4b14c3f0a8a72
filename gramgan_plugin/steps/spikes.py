"""Gradients far above what is usual, and losses that jump between two log lines: followed on the device."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Norms of the last iterations; the median of fewer than half of them says nothing yet.
WINDOW = 64


class GradientSpikes:
    """Finds gradients whose norm is far above its running median, and holds them back to that median.

    Skipping such a step would not help: with a rate that is too high the weights are already where gradients are large,
    and stay there. Taking it whole fills Adam's second moments, so that the next thousand steps are next to none.

    Args:
        names: of the networks.
        ratio: how many times the median is too much; more than 1.
        device: where norms are.
    """

    def __init__(self, names: Iterable[str], ratio: float, device: torch.device) -> None:
        self.ratio = ratio
        self.norms = {name: torch.full((WINDOW,), torch.nan, device=device) for name in names}

    def judge(self, name: str, norm: Tensor) -> Tensor:
        """Take the norm of a network's gradient in an iteration.

        A norm that is too large counts as the median in those to come; norms may still grow by ``ratio`` in a window.

        Args:
            name: of the network.
            norm: a scalar.

        Returns:
            The norm in units of its median, a scalar; 1 where it is within ``ratio`` or nothing is usual yet.
        """
        before = self.norms[name]
        median = before.nanmedian()
        times = norm.detach() / median
        known = (torch.isfinite(before).sum() >= WINDOW // 2) & (median > 0)
        times = torch.where(known & (times > self.ratio), times, 1.0)
        after = torch.cat([before[1:], (norm.detach() / times).reshape(1).to(before.dtype)])
        before.copy_(torch.where(torch.isfinite(norm), after, before))
        return times

    def state_dict(self) -> dict[str, Tensor]:
        """Network -> its last norms, (WINDOW,), the newest last, NaN where there were none yet."""
        return {name: norms.clone() for name, norms in self.norms.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state_dict`` gave; a network that it does not have starts without norms.

        Raises:
            ValueError: if it is something else.
        """
        for name, own in self.norms.items():
            norms = state.get(name)
            if norms is None:
                continue
            if not isinstance(norms, Tensor) or norms.shape != own.shape or norms.dtype != own.dtype:
                raise ValueError(f"'{name}' does not hold {WINDOW} gradient norms")
            own.copy_(norms)


class LossPeak:
    """The largest finite loss since it was last asked for, and its iteration.

    Args:
        device: where losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.zeros((), device=device)
        self.iteration = torch.zeros((), dtype=torch.int64, device=device)

    def note(self, loss: Tensor, iteration: int) -> None:
        """Take an iteration's loss, a scalar."""
        larger = torch.isfinite(loss) & (loss > self.value)
        self.value.copy_(torch.where(larger, loss, self.value))
        self.iteration.copy_(torch.where(larger, iteration, self.iteration))

    def take(self) -> dict[str, float]:
        """``loss_peak`` and ``loss_peak_iter``, which then begin anew; {} if there was none. Waits for the device."""
        value, iteration = float(self.value), int(self.iteration)
        self.value.zero_()
        self.iteration.zero_()
        return {"loss_peak": value, "loss_peak_iter": float(iteration)} if iteration else {}
