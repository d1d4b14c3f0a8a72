"""End an iteration: measure and clip the gradients; then all optimizers step, or none does; move the average."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from gramgan_plugin.compat import clip_by_norm, total_norm
from gramgan_plugin.errors import TrainingStopped
from gramgan_plugin.steps.spikes import GradientSpikes, LossPeak
from gramgan_plugin.utils.devices import finest_dtype


@dataclass(frozen=True)
class Skipped:
    """The skipped and scaled-down steps since the last report.

    Attributes:
        count: number of skipped steps.
        longest: the most skipped in a row of those that train one network, counted also from before the last report.
        iteration: of the first skipped step; 0 if there was none.
        first: the first non-finite value in it, in the order of computation.
        held_back: number of steps whose gradient was scaled down because it was unusually large.
        held_back_from: iteration of the first of them; 0 if there was none.
        times_median: the largest such norm, in units of the running median.
    """

    count: int
    longest: int
    iteration: int
    first: str
    held_back: int = 0
    held_back_from: int = 0
    times_median: float = 0.0

    def lines(self, finds_scale: bool) -> Iterator[tuple[int, str]]:
        """Yield what to report: the logging level and the line.

        Args:
            finds_scale: whether a gradient scaler searches its factor, so that skipped steps are expected.
        """
        if self.held_back:
            steps = f"{self.held_back} step{'s' if self.held_back > 1 else ''}"
            yield (
                logging.WARNING,
                f"{steps} held back since the last log: from iteration {self.held_back_from:,}, with gradient norms of "
                f"up to {self.times_median:.0f} times the running median (train.max_grad_ratio)",
            )
        if self.count:
            yield logging.INFO if finds_scale and self.first.startswith("grad_norm") else logging.WARNING, str(self)

    def log(self) -> dict[str, float]:
        """Return ``skipped_steps`` and ``held_back_steps``, if any were."""
        counts = {"skipped_steps": float(self.count), "held_back_steps": float(self.held_back)}
        return {key: count for key, count in counts.items() if count}

    def stop_after(self, limit: int) -> None:
        """Stop training after ``limit`` skipped iterations in a row.

        Raises:
            TrainingStopped: if there were so many.
        """
        if self.longest >= limit:
            raise TrainingStopped(
                f"train.max_nonfinite: {self.longest} iterations in a row were skipped ({self}); weights are as before "
                "them. Resume with --auto_resume and a lower learning rate, train.clip_grad_norm_g, or "
                "train.precision: fp32"
            )

    def __str__(self) -> str:
        steps = f"{self.count} step{'s' if self.count > 1 else ''}"
        return (
            f"{steps} skipped since the last log: from iteration {self.iteration:,}, where {self.first} was the first "
            "that was not finite"
        )


class Update:
    """Step all optimizers, unless a value of the iteration is non-finite.

    The decision is made on the device and stays there: the fused Adam and AdamW take it as a tensor (``found_inf``) and
    then leave weights and moments unchanged. For any other optimizer the decision must be read, which waits for the
    device. All processes decide together.

    Args:
        optimizers: by name (``g``, ``d``).
        networks: their networks, by the same names; their buffers (BatchNorm's statistics) are restored if the step is
            skipped.
        clip: largest norm of each gradient, by name; without an entry it is not clipped.
        scaler: the gradient scaler of the losses, or None.
        max_grad_ratio: a gradient with a norm of more than so many times its running median is scaled down to that
            median; None for no limit.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        networks: Mapping[str, nn.Module],
        *,
        clip: Mapping[str, float] | None = None,
        scaler: "torch.amp.GradScaler | None" = None,
        max_grad_ratio: float | None = None,
    ) -> None:
        self.optimizers = dict(optimizers)
        self.clip = dict(clip or {})
        self.scaler = scaler
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in self.optimizers.items()
        }
        device = next(p.device for parameters in self.parameters.values() for p in parameters)
        self.found_inf = torch.zeros((), device=device)
        self._buffers = _Buffers([b for net in networks.values() for b in net.buffers()])
        # Counted on the device: skipped steps, the most in a row, first iteration, first value.
        self._counts = torch.zeros(4, dtype=torch.int64, device=device)
        # The current number in a row, of the iterations that train the network of an optimizer.
        self._rows = {name: torch.zeros((), dtype=torch.int64, device=device) for name in self.optimizers}
        self.spikes = GradientSpikes(self.optimizers, max_grad_ratio, device) if max_grad_ratio else None
        self.peak = LossPeak(device)
        self._one = torch.ones((), device=device)
        # Steps scaled down, the first of them, the largest norm divided by its median.
        self._held_back = torch.zeros(3, dtype=finest_dtype(device.type), device=device)
        self._names: list[str] = []
        self._numbers: dict[tuple[str, ...], Tensor] = {}

    def scale(self, parts: int = 1) -> Tensor | float:
        """Return the factor of the loss of one of ``parts`` equal parts of a batch, for backward."""
        if self.scaler is None:
            return 1.0 / parts
        scale: Tensor = self.scaler.scale(self._one) / parts  # stays on the device
        return scale

    def begin(self) -> None:
        """Reset the gradients and copy the buffers, before an iteration's forward passes."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self._buffers.save()

    def finish(self, values: Mapping[str, Tensor], iteration: int) -> dict[str, Tensor]:
        """Step, or restore the state of ``begin``, after the backward passes.

        Args:
            values: other scalars that must be finite, by name, in the order of computation.
            iteration: 1-based, for the report.

        Returns:
            ``grad_norm_NAME``: the norm of each gradient before clipping. A network without gradients is not
            stepped and has none.
        """
        active = [name for name, own in self.parameters.items() if any(p.grad is not None for p in own)]
        norms = {f"grad_norm_{name}": self._norm(name) for name in active}
        self._decide({**values, **norms}, iteration, active)
        for name in active:
            norm = norms[f"grad_norm_{name}"]
            if self.spikes is not None:
                times = self.spikes.excess(name, norm)
                self._scale_down(name, times, iteration)
                norm = norm / times
            if name in self.clip:
                clip_by_norm([p for p in self.parameters[name] if p.grad is not None], self.clip[name], norm)
            self._step(self.optimizers[name])
        if self.scaler is not None and active:
            self.scaler.update()
        self._buffers.restore(self.found_inf)
        content = (
            [values["l_g_pix"]]
            if "l_g_pix" in values
            else [values[key] for key in values if key.startswith("l_g_") and key != "l_g_gan"]
        )
        if content:
            self.peak.note(torch.stack([loss.detach().reshape(()) for loss in content]).sum(), iteration)
        return norms

    def report(self) -> Skipped:
        """Return what was skipped since the last report; waits for the device."""
        count, longest, iteration, first = self._counts.tolist()
        self._counts.zero_()  # skipped steps in a row that continue are counted from their start in the next report
        held_back, held_back_from, times = self._held_back.tolist() if self.spikes is not None else (0.0, 0.0, 0.0)
        self._held_back.zero_()
        what = self._names[first] if count else ""
        return Skipped(count, longest, iteration, what, int(held_back), int(held_back_from), times)

    def _norm(self, name: str) -> Tensor:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizers[name])
        grads = [p.grad for p in self.parameters[name] if p.grad is not None]
        return total_norm(grads)

    def _decide(self, values: Mapping[str, Tensor], iteration: int, active: Sequence[str]) -> None:
        """Set ``found_inf`` to 1 if a value is non-finite on any process, and count for the ``active`` networks."""
        bad = ~torch.isfinite(torch.stack([value.detach().reshape(()).float() for value in values.values()]))
        bad = bad.to(self._counts.dtype)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(bad, distributed.ReduceOp.MAX)
        any_bad = bad.amax()
        self.found_inf.copy_(any_bad)
        skipped, longest, first_iteration, first = self._counts.unbind()
        new = any_bad * (first_iteration == 0)  # 1 for the first bad iteration since the last report
        value = self._number(tuple(values)).take(bad.argmax())  # an index in brackets would be read
        for name in active:  # a network that has a turn now and then must not be hidden by the other's good steps
            self._rows[name] = (self._rows[name] + 1) * any_bad
            longest = torch.maximum(longest, self._rows[name])
        self._counts.copy_(
            torch.stack([skipped + any_bad, longest, first_iteration + new * iteration, first + new * value])
        )

    def _scale_down(self, name: str, times: Tensor, iteration: int) -> None:
        """Divide a network's gradient by ``times``, and count if that is more than 1."""
        torch._foreach_div_([p.grad for p in self.parameters[name] if p.grad is not None], times)
        held = (times > 1) & (self.found_inf == 0)
        count, first, largest = self._held_back.unbind()
        first = torch.where(held & (first == 0), iteration, first)
        largest = torch.maximum(largest, torch.where(held, times, 0.0).to(largest.dtype))
        self._held_back.copy_(torch.stack([count + held, first, largest]))

    def _number(self, names: tuple[str, ...]) -> Tensor:
        """Return the positions of ``names`` in the list of all names so far, as a tensor on the device."""
        if names not in self._numbers:
            self._names += [name for name in names if name not in self._names]
            numbers = [self._names.index(name) for name in names]
            self._numbers[names] = torch.tensor(numbers, device=self._counts.device)
        return self._numbers[names]

    def _step(self, optimizer: Optimizer) -> None:
        if decides_on_device(optimizer):
            optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]
            try:
                optimizer.step()
            finally:
                del optimizer.found_inf  # type: ignore[attr-defined]
        elif not bool(self.found_inf):
            optimizer.step()


def decides_on_device(optimizer: Optimizer) -> bool:
    """Return whether an optimizer skips its step by ``found_inf``, also the first step (fused SGD does not)."""
    adam = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
    return adam and all(group.get("fused") for group in optimizer.param_groups)


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


class _Buffers:
    """A copy of buffers, one flat tensor per dtype, so that few operations copy many buffers."""

    def __init__(self, buffers: list[Tensor]) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in buffers:
            if buffer.numel():
                by_type.setdefault(buffer.dtype, []).append(buffer)
        self._groups = list(by_type.values())
        self._copies: list[Tensor] = []

    @torch.no_grad()
    def save(self) -> None:
        self._copies = [_flat(group) for group in self._groups]

    @torch.no_grad()
    def restore(self, condition: Tensor) -> None:
        """Restore the copies if ``condition`` is 1; if it is 0, nothing changes."""
        for group, copy in zip(self._groups, self._copies, strict=True):
            flat = torch.where(condition > 0, copy, _flat(group))
            pieces = flat.split([buffer.numel() for buffer in group])
            shaped = [piece.view_as(buffer) for piece, buffer in zip(pieces, group, strict=True)]
            torch._foreach_copy_(group, shaped)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
