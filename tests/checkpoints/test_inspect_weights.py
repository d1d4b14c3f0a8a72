"""What `basicsr inspect` says of files."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from gramgan_plugin.archs import GramGANDiscriminator
from gramgan_plugin.cli.main import main
from tests.checkpoints import generators as given_as


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_facts(workdir, capsys):
    net = given_as.rrdbnet()
    torch.save({"params": net.state_dict(), "params_ema": given_as.original(net.state_dict())}, "net_g_300.pth")
    found = facts(capsys, "net_g_300.pth")
    assert found["architecture"] == "RRDBNet"
    assert found["format"] == "original (the original ESRGAN repository)"
    assert (found["scale"], found["in_channels"], found["iteration"], found["averaged"]) == (4, 3, 300, True)
    assert found["parameters"] == sum(p.numel() for p in net.parameters())
    assert found["sha256"] == hashlib.sha256(Path("net_g_300.pth").read_bytes()).hexdigest()
    assert found["network_g"]["num_block"] == 2
    assert found["non_finite"] is None
    assert facts(capsys, "net_g_300.pth", "--param-key", "params")["format"] == "basicsr (BasicSR)"


def test_lines(workdir, capsys):
    state = given_as.rrdbnet().state_dict()
    state["conv_hr.bias"][3] = float("nan")
    torch.save({"params": state, "note": "\x1b[2Jred", "epoch": 4}, "x.pth")
    assert main(["inspect", "x.pth"]) == 0
    printed = capsys.readouterr().out
    assert "RRDBNet x4, 3 -> 3 channels: " in printed
    assert "damaged: conv_hr.bias " in printed
    assert "\\x1b[2Jred" in printed
    assert "\x1b" not in printed
    assert "epoch: 4" in printed


def test_a_discriminator_and_an_unknown_network(workdir, capsys):
    torch.save(GramGANDiscriminator(num_feat=4).state_dict(), "d.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), "x.pth")
    assert facts(capsys, "d.pth")["architecture"] == "a discriminator"
    assert facts(capsys, "x.pth")["architecture"] is None
    assert main(["inspect", "x.pth"]) == 0
    assert "unknown architecture" in capsys.readouterr().out


def test_another_architecture(workdir, capsys):
    spandrel = pytest.importorskip("spandrel.architectures.SPAN")
    net = spandrel.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)
    torch.save({"params": net.state_dict()}, "s.pth")
    found = facts(capsys, "s.pth")
    assert (found["architecture"], found["scale"], found["in_channels"]) == ("SPAN", 2, 3)
    again = getattr(spandrel, found["network_g"].pop("type"))(**found["network_g"])
    again.load_state_dict(net.state_dict())
    assert (found["options"]["upscale"], found["options"]["feature_channels"]) == (2, 8)


def test_empty_tensors(workdir, capsys):
    """A narrow network has some; a large size of one that has no data must not let a network be built."""
    spandrel = pytest.importorskip("spandrel.architectures.DAT")
    options = {"embed_dim": 8, "depth": [2], "num_heads": [2], "split_size": [8, 8], "upscale": 2}
    state = spandrel.DAT(**options, upsampler="pixelshuffledirect").state_dict()
    empty = [name for name, tensor in state.items() if not tensor.numel()]
    assert empty
    torch.save(state, "dat.pth")
    assert facts(capsys, "dat.pth")["architecture"] == "DAT"
    state[empty[0]] = torch.empty(0, 10**9)
    torch.save(state, "dat.pth")
    assert facts(capsys, "dat.pth")["architecture"] is None


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(100)])
def test_no_weights(workdir, capsys, content):
    Path("x.pth").write_bytes(content)
    assert main(["inspect", "x.pth"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
