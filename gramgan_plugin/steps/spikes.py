"""Find unusually large gradients, and the largest loss between two log lines, on the device."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Number of past norms; the median of fewer than half of them is not used.
WINDOW = 64


class GradientSpikes:
    """Find gradients whose norm is far above its running median, and compute the factor to that median.

    Skipping such a step would not help: with a learning rate that is too high, the weights are already where gradients
    are large, and stay there. The full gradient would fill Adam's second moments, so that the next thousand steps are
    almost 0.

    Args:
        names: of the networks.
        ratio: a norm of more than so many times the median is too large; more than 1.
        device: of the norms.
    """

    def __init__(self, names: Iterable[str], ratio: float, device: torch.device) -> None:
        self.ratio = ratio
        self.norms = {name: torch.full((WINDOW,), torch.nan, device=device) for name in names}

    def excess(self, name: str, norm: Tensor) -> Tensor:
        """Record the norm of a network's gradient in an iteration, and return by how much it is too large.

        Later medians count a norm that is too large as the median; norms can still grow by ``ratio`` in a window.

        Args:
            name: of the network.
            norm: a scalar.

        Returns:
            The norm divided by the median, a scalar; 1 if it is at most ``ratio``, or too few norms are known.
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
        """Return the last norms of each network, (WINDOW,), the newest last, NaN before the first."""
        return {name: norms.clone() for name, norms in self.norms.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned; a missing network starts without norms.

        Raises:
            ValueError: if it has another form.
        """
        for name, own in self.norms.items():
            norms = state.get(name)
            if norms is None:
                continue
            if not isinstance(norms, Tensor) or norms.shape != own.shape or norms.dtype != own.dtype:
                raise ValueError(f"'{name}' does not hold {WINDOW} gradient norms")
            own.copy_(norms)


class LossPeak:
    """The largest finite loss since the last ``take``, and its iteration.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.zeros((), device=device)
        self.iteration = torch.zeros((), dtype=torch.int64, device=device)

    def note(self, loss: Tensor, iteration: int) -> None:
        """Record an iteration's loss, a scalar."""
        larger = torch.isfinite(loss) & (loss > self.value)
        self.value.copy_(torch.where(larger, loss, self.value))
        self.iteration.copy_(torch.where(larger, iteration, self.iteration))

    def take(self) -> dict[str, float]:
        """Return ``loss_peak`` and ``loss_peak_iter``, and reset them; {} if there was none. Waits for the device."""
        value, iteration = float(self.value), int(self.iteration)
        self.value.zero_()
        self.iteration.zero_()
        return {"loss_peak": value, "loss_peak_iter": float(iteration)} if iteration else {}
