"""The end of an iteration: gradients are measured, clipped, and all optimizers step, or none does."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from gramgan_plugin.errors import TrainingStopped
from gramgan_plugin.steps.spikes import GradientSpikes, LossPeak


@dataclass(frozen=True)
class Skipped:
    """The iterations without a step since the last report.

    Attributes:
        count: how many.
        longest: the longest run of them without a break, which may have begun before the last report.
        iteration: the first of them; 0 if there was none.
        first: what was not finite in it, the first in the order in which an iteration computes things.
        held_back: iterations, besides, whose gradients were far above what is usual.
        held_back_from: the first of them; 0 if there was none.
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
            finds_scale: whether a gradient scaler tries factors, so that skipped steps are expected.
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
    """Takes the steps of all optimizers, unless something in the iteration was not finite.

    Whether it was is decided on the device and stays there: the fused Adam and AdamW take the decision as a tensor
    (``found_inf``) and then leave weights and moments as they were. For any other optimizer the decision has to be
    read, which waits for the device. Over several processes the decision is common.

    Args:
        optimizers: by name (``g``, ``d``).
        networks: their networks, by the same names; buffers of theirs (BatchNorm's statistics) go back with a step
            that is not taken.
        clip: largest norm of each one's gradient, by name; none where it has no entry.
        scaler: the gradient scaler that the losses were multiplied with, or None.
        max_grad_ratio: a gradient with a norm of more than so many times its running median is scaled down to that
            median; None for none.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        networks: Mapping[str, nn.Module],
        *,
        clip: Mapping[str, float] | None = None,
        scaler: torch.amp.GradScaler | None = None,
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
        # Counted on the device: steps skipped, the present run of them, the longest, first iteration, first thing.
        self._counts = torch.zeros(5, dtype=torch.int64, device=device)
        self.spikes = GradientSpikes(self.optimizers, max_grad_ratio, device) if max_grad_ratio else None
        self.peak = LossPeak(device)
        self._one = torch.ones((), device=device)
        # Steps held back, the first of them, the largest norm by its median.
        self._held_back = torch.zeros(3, dtype=torch.float64, device=device)
        self._names: list[str] = []
        self._numbers: dict[tuple[str, ...], Tensor] = {}

    def scale(self, parts: int = 1) -> Tensor | float:
        """Return what the loss of one of ``parts`` equal parts of a batch is multiplied by before backward."""
        if self.scaler is None:
            return 1.0 / parts
        scale: Tensor = self.scaler.scale(self._one) / parts  # stays on the device
        return scale

    def begin(self) -> None:
        """Before an iteration's forward passes: no gradients, and buffers as they are to be if it fails."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self._buffers.keep()

    def finish(self, values: Mapping[str, Tensor], iteration: int) -> dict[str, Tensor]:
        """After the backward passes: step, or leave everything as it was at ``begin``.

        Args:
            values: what has to be finite besides the gradients: scalars by name, in the order in which they came
                about.
            iteration: 1-based, for the report.

        Returns:
            ``grad_norm_NAME``: the norm of each gradient before clipping. A network without gradients in this
            iteration takes no step and has none.
        """
        active = [name for name, own in self.parameters.items() if any(p.grad is not None for p in own)]
        norms = {f"grad_norm_{name}": self._norm(name) for name in active}
        self._judge({**values, **norms}, iteration)
        for name in active:
            norm = norms[f"grad_norm_{name}"]
            if self.spikes is not None:
                times = self.spikes.judge(name, norm)
                self._hold_back(name, times, iteration)
                norm = norm / times
            if name in self.clip:
                grads = [p for p in self.parameters[name] if p.grad is not None]
                nn.utils.clip_grads_with_norm_(grads, self.clip[name], norm)
            self._step(self.optimizers[name])
        if self.scaler is not None and active:
            self.scaler.update()
        self._buffers.restore(self.found_inf)
        content = [values["l_g_pix"]] if "l_g_pix" in values else [values[key] for key in values if key[:4] == "l_g_"]
        if content:
            self.peak.note(torch.stack([loss.detach().reshape(()) for loss in content]).sum(), iteration)
        return norms

    def report(self) -> Skipped:
        """What was skipped since the last report; reads from the device, and waits for it."""
        count, _, longest, iteration, first = self._counts.tolist()
        self._counts[0] = 0
        self._counts[2] = 0  # a run that goes on is counted whole in the next
        self._counts[3:] = 0
        held_back, held_back_from, times = self._held_back.tolist() if self.spikes is not None else (0.0, 0.0, 0.0)
        self._held_back.zero_()
        what = self._names[first] if count else ""
        return Skipped(count, longest, iteration, what, int(held_back), int(held_back_from), times)

    def _norm(self, name: str) -> Tensor:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizers[name])
        grads = [p.grad for p in self.parameters[name] if p.grad is not None]
        return nn.utils.get_total_norm(grads)

    def _judge(self, values: Mapping[str, Tensor], iteration: int) -> None:
        """Set ``found_inf`` to 1 if a value is not finite on any process, and count."""
        bad = ~torch.isfinite(torch.stack([value.detach().reshape(()).float() for value in values.values()]))
        bad = bad.to(self._counts.dtype)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(bad, distributed.ReduceOp.MAX)
        any_bad = bad.amax()
        self.found_inf.copy_(any_bad)
        skipped, run, longest, first_iteration, first = self._counts.unbind()
        new = any_bad * (first_iteration == 0)  # 1 for the first bad iteration since the last report
        thing = self._number(tuple(values))[bad.argmax()]
        run = (run + 1) * any_bad
        self._counts.copy_(
            torch.stack(
                [
                    skipped + any_bad,
                    run,
                    torch.maximum(longest, run),
                    first_iteration + new * iteration,
                    first + new * thing,
                ]
            )
        )

    def _hold_back(self, name: str, times: Tensor, iteration: int) -> None:
        """Divide a network's gradient by ``times``, and count where that is more than 1."""
        torch._foreach_div_([p.grad for p in self.parameters[name] if p.grad is not None], times)
        held = (times > 1) & (self.found_inf == 0)
        count, first, largest = self._held_back.unbind()
        first = torch.where(held & (first == 0), iteration, first)
        largest = torch.maximum(largest, torch.where(held, times, 0.0).double())
        self._held_back.copy_(torch.stack([count + held, first, largest]))

    def _number(self, names: tuple[str, ...]) -> Tensor:
        """Where ``names`` stand in the list of all names seen, as a tensor on the device."""
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
    """Whether an optimizer takes the decision as a tensor and honours it in its first step, too (fused SGD fails)."""
    adam = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
    return adam and all(group.get("fused") for group in optimizer.param_groups)


class _Buffers:
    """A second copy of buffers, one flat tensor a type, so that it costs few operations whatever their number."""

    def __init__(self, buffers: list[Tensor]) -> None:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in buffers:
            if buffer.numel():
                by_type.setdefault(buffer.dtype, []).append(buffer)
        self._groups = list(by_type.values())
        self._kept: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        self._kept = [_flat(group) for group in self._groups]

    @torch.no_grad()
    def restore(self, wanted: Tensor) -> None:
        """Put the copies back where ``wanted`` is 1; where it is 0, nothing changes."""
        for group, kept in zip(self._groups, self._kept, strict=True):
            flat = torch.where(wanted > 0, kept, _flat(group))
            pieces = flat.split([buffer.numel() for buffer in group])
            shaped = [piece.view_as(buffer) for piece, buffer in zip(pieces, group, strict=True)]
            torch._foreach_copy_(group, shaped)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
