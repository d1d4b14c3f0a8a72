"""Interpolation of weights, and networks that cannot be interpolated."""

import pytest
import torch

from gramgan_plugin.checkpoints.interpolate import interpolate, likeness, read_sources, strangers_warning
from gramgan_plugin.errors import UserError
from tests.checkpoints import generators as given_as


def test_values():
    a, b, c = ({"w": torch.randn(3, 2), "n": torch.tensor(7)} for _ in range(3))
    mean = interpolate([a, b, c], [0.2, 0.5, 0.3])
    assert torch.allclose(mean["w"], 0.2 * a["w"] + 0.5 * b["w"] + 0.3 * c["w"])
    assert mean["n"] == 7
    assert torch.equal(interpolate([a, b], [1, 0])["w"], a["w"])
    assert torch.equal(interpolate([a, a], [0.3, 0.7])["w"], a["w"])
    halves = [{"w": tensor["w"].half()} for tensor in (a, b)]
    assert interpolate(halves, [0.5, 0.5])["w"].dtype == torch.float16


@pytest.mark.parametrize("weights", [[1.0], [0.5, float("nan")]])
def test_exception(weights):
    with pytest.raises(ValueError, match="weights"):
        interpolate([{}, {}], weights)


def test_any_forms_and_averaged_with_averaged(workdir):
    states = [given_as.rrdbnet(seed).state_dict() for seed in range(3)]
    torch.save({"params": states[0], "params_ema": states[1]}, "ours.pth")
    torch.save(given_as.old_arch(states[2]), "theirs.pth")
    first, second = read_sources(["ours.pth", "ours.pth"])
    assert torch.equal(first.state["conv_last.bias"], states[1]["conv_last.bias"])
    # the other file has no averaged weights
    first, second = read_sources(["ours.pth", "theirs.pth"])
    assert torch.equal(first.state["conv_last.bias"], states[0]["conv_last.bias"])
    assert torch.equal(second.state["conv_last.bias"], states[2]["conv_last.bias"])


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (given_as.msrresnet, r"a\.pth is RRDBNet, b\.pth is MSRResNet"),
        (lambda: given_as.rrdbnet(num_block=3), r"a\.pth has num_block 2, b\.pth has 3"),
        (lambda: given_as.rrdbnet(scale=2), r"a\.pth has unshuffle 1, b\.pth has 2"),
        (lambda: torch.nn.Linear(2, 2), r"a\.pth is RRDBNet, b\.pth is another architecture"),
    ],
)
def test_other_networks(workdir, other, problem):
    torch.save(given_as.rrdbnet().state_dict(), "a.pth")
    torch.save(other().state_dict(), "b.pth")
    with pytest.raises(UserError, match=problem):
        read_sources(["a.pth", "b.pth"])


def test_strangers(workdir):
    net, stranger = given_as.rrdbnet(0).state_dict(), given_as.rrdbnet(1).state_dict()
    child = {name: tensor + 0.1 * tensor.std().nan_to_num() * torch.randn_like(tensor) for name, tensor in net.items()}
    for name, state in (("net", net), ("child", child), ("stranger", stranger)):
        torch.save(state, f"{name}.pth")
    assert likeness(net, net) == pytest.approx(1)
    assert abs(likeness(net, stranger)) < 0.1
    assert strangers_warning(read_sources(["net.pth", "child.pth"])) is None
    warning = strangers_warning(read_sources(["net.pth", "stranger.pth"]))
    assert warning.startswith("net.pth and stranger.pth are far apart")
