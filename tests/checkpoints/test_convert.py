"""Conversions there and back, their files, and what cannot be converted."""

import pytest
import torch
from safetensors import safe_open

from gramgan_plugin.checkpoints.convert import convert_weights
from gramgan_plugin.checkpoints.generators import recognise
from gramgan_plugin.checkpoints.networks import load_network
from gramgan_plugin.checkpoints.weights_file import read_weights
from gramgan_plugin.cli.main import main
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import file_sha256
from tests.checkpoints import generators as given_as
from tests.messages import assert_message


@pytest.fixture
def source(workdir):
    """BasicSR's file with both kinds of weights."""
    states = [given_as.rrdbnet(seed).state_dict() for seed in (0, 1)]
    torch.save({"params": states[0], "params_ema": states[1], "iter": 700}, "net_g_5000.pth")
    return states


@pytest.mark.parametrize("first", ["basicsr", "original", "old-arch", "mmagic", "safetensors"])
@pytest.mark.parametrize("second", ["basicsr", "original", "old-arch", "mmagic", "safetensors"])
def test_there_and_back(source, first, second):
    for key, expected in (("params", source[0]), (None, source[1])):
        convert_weights("net_g_5000.pth", first, "first", key)
        convert_weights("first", second, "second")
        found = recognise(read_weights("second").state)
        assert found.format == ("basicsr" if second == "safetensors" else second)
        assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.items())


def test_names_as_written_by_hand(source):
    for to, rename in (("original", given_as.original), ("old-arch", given_as.old_arch)):
        convert_weights("net_g_5000.pth", to, "out.pth", "params")
        written = torch.load("out.pth", weights_only=True)
        expected = rename(source[0])
        assert written.keys() == expected.keys()
        assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    convert_weights("net_g_5000.pth", "mmagic", "out.pth", "params")
    assert "generator.body.0.rdb1.conv1.weight" in torch.load("out.pth", weights_only=True)["state_dict"]
    convert_weights("net_g_5000.pth", "basicsr", "out.pth")
    assert list(torch.load("out.pth", weights_only=True)) == ["params_ema"]


def test_metadata(source):
    convert_weights("net_g_5000.pth", "safetensors", "out.safetensors")
    with safe_open("out.safetensors", "pt") as file:
        text = file.metadata()["metadata"]
    again = read_weights("out.safetensors")
    assert '"architecture": "RRDBNet"' in text
    assert again.metadata["source_sha256"] == file_sha256("net_g_5000.pth")
    assert (again.averaged, again.iteration, again.metadata["scale"]) == (True, 700, 4)


def test_half_precision_stays(workdir):
    torch.save({name: tensor.half() for name, tensor in given_as.rrdbnet().state_dict().items()}, "half.pth")
    convert_weights("half.pth", "original", "out.pth")
    assert {tensor.dtype for tensor in torch.load("out.pth", weights_only=True).values()} == {torch.float16}


@pytest.mark.parametrize("scale", [4, 2, 1])
def test_onnx(workdir, scale):
    """Of every scale, since an exporter misordered PixelUnshuffle; sizes are dynamic."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = given_as.rrdbnet(scale=scale)
    torch.save(net.state_dict(), "x.pth")
    convert_weights("x.pth", "onnx", "x.onnx")
    session = runtime.InferenceSession("x.onnx")
    for shape in ((1, 3, 20, 28), (3, 3, 8, 4)):
        image = torch.rand(shape)
        (result,) = session.run(["sr"], {"lq": image.numpy()})
        assert (torch.from_numpy(result) - net(image)).abs().max() < 1e-5


def test_another_architecture(workdir, capsys):
    spandrel = pytest.importorskip("spandrel.architectures.SPAN")
    torch.manual_seed(0)
    net = spandrel.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2).eval()
    torch.save({"params": net.state_dict()}, "span.pth")
    assert main(["convert", "span.pth", "--to", "safetensors"]) == 0
    again = load_network("span_safetensors.safetensors")
    assert (again.architecture, again.scale) == ("SPAN", 2)
    assert main(["convert", "span.pth", "--to", "onnx"]) == 0
    assert "ONNX, checked by ONNX Runtime" in capsys.readouterr().out
    session = pytest.importorskip("onnxruntime").InferenceSession("span_onnx.onnx")
    image = torch.rand(3, 3, 9, 14)
    (result,) = session.run(["sr"], {"lq": image.numpy()})
    assert (torch.from_numpy(result) - net(image).clamp(0, 1)).abs().max() < 1e-4
    assert main(["convert", "span.pth", "--to", "old-arch"]) == 2
    assert_message(capsys.readouterr().err, "basicsr convert: span.pth", "old-arch has no names")


def test_srresnet_has_no_old_form(workdir):
    torch.save(given_as.msrresnet().state_dict(), "x.pth")
    with pytest.raises(UserError, match="old-arch has no names for MSRResNet"):
        convert_weights("x.pth", "old-arch", "out.pth")


def test_command(source, capsys):
    assert main(["convert", "net_g_5000.pth", "--to", "original"]) == 0
    assert capsys.readouterr().out == "net_g_5000_original.pth: RRDBNet, original\n"
    assert main(["convert", "net_g_5000.pth", "--to", "original", "-o", "./net_g_5000.pth"]) == 2
    assert main(["convert", "none.pth", "--to", "original"]) == 2
    assert main(["convert", "net_g_5000.pth", "--to", "basicsr", "--param-key", "ema2"]) == 2
    assert "it has params, params_ema" in capsys.readouterr().err
