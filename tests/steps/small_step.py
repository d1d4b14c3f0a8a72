"""An iteration of small networks, and what tests read from it."""

from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.steps.gan_step import GANStep
from gramgan_plugin.steps.step_state import Batch, StepState
from gramgan_plugin.steps.terms import AdversarialTerm
from gramgan_plugin.steps.update import Update

TAPS = ("conv1_0", "conv3_0")


class Generator(nn.Module):
    """Enough of a generator: a conv on the enlarged input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, lq: Tensor) -> Tensor:
        return self.conv(nn.functional.interpolate(lq, scale_factor=4, mode="bicubic"))


class Spy(nn.Module):
    """Records how a discriminator is called."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls: list[dict[str, Any]] = []

    def forward(self, x: Tensor, taps: Any = None) -> Any:
        call = {"x": x.detach().clone(), "taps": taps, "grad": torch.is_grad_enabled(), "reaches": x.requires_grad}
        call["trains"] = any(p.requires_grad for p in self.net.parameters())
        self.calls.append(call)
        return self.net(x) if taps is None else self.net(x, taps=taps)


def run(
    net_g: nn.Module,
    net_d: nn.Module | None,
    terms: list[Any],
    batch: Batch,
    *,
    diagnose: bool = False,
    scaler: torch.amp.GradScaler | None = None,
    adversarial: Any = None,
    **options: Any,
) -> StepState:
    """Run one iteration that leaves gradients in the networks, and their weights as they are."""
    nets = {"g": net_g} | ({"d": net_d} if net_d is not None else {})
    optimizers = {name: torch.optim.SGD(net.parameters(), lr=0.0) for name, net in nets.items()}
    if adversarial is None and net_d is not None:
        adversarial = next(term.loss for term in terms if isinstance(term, AdversarialTerm))
    update = Update(optimizers, nets, scaler=scaler)
    step = GANStep(net_g, net_d, terms, adversarial, update, diagnose_every=int(diagnose), **options)
    return step(batch, batch.iteration)


def grads(*nets: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for net in nets for p in net.parameters()]
