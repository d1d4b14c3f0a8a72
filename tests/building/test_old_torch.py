"""What stands in for functions that torch has from 2.6 on, against them."""

import pytest
import torch
from torch import nn

from gramgan_plugin import compat


@pytest.fixture
def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    found = [nn.Parameter(torch.randn(n, generator=generator)) for n in (3, 50)]
    for parameter in found:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return found


@pytest.mark.parametrize("largest", [0.5, 1000.0])
def test_without_them(parameters: list[nn.Parameter], largest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = [p.grad.clone() for p in parameters]
    norm = nn.utils.get_total_norm(gradients)
    nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    expected = [p.grad.clone() for p in parameters]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    monkeypatch.delattr(nn.utils, "get_total_norm")
    monkeypatch.delattr(nn.utils, "clip_grads_with_norm_")
    torch.testing.assert_close(compat.total_norm(gradients), norm)
    compat.clip_by_norm(parameters, largest, compat.total_norm(gradients))
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, value)
