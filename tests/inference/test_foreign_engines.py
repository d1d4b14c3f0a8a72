"""Networks of spandrel in the engines: what some of them cannot do is found out before it matters."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from gramgan_plugin.checkpoints.foreign_networks import ForeignNetwork
from gramgan_plugin.checkpoints.networks import Network, load_network
from gramgan_plugin.cli.main import main
from gramgan_plugin.errors import UserError
from gramgan_plugin.inference import engines
from gramgan_plugin.inference.engines import build_engine
from gramgan_plugin.inference.upscaler import Upscaler

spandrel = pytest.importorskip("spandrel")
CPU = torch.device("cpu")


class Descriptor:
    """What ForeignNetwork needs of spandrel's descriptor."""

    size_requirements = spandrel.SizeRequirements()

    def __init__(self, model):
        self.model = model

    @torch.inference_mode()
    def __call__(self, image):
        return self.model(image)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.up = torch.nn.Upsample(scale_factor=2)


class Viewing(Model):
    """Takes no channels-last layout."""

    def forward(self, x):
        return self.up(x.view(1, -1).view(x.shape))


class MixesTypes(Model):
    def forward(self, x):
        return self.up((self.weight.view(1, 1) @ torch.ones(1, 1)) * x)


class InPlace(Model):
    def forward(self, x):
        return self.up(x.mul_(255)) / 255


class NotOnePixel(Model):
    def forward(self, x):
        return self.up(torch.nn.functional.pad(x, (0, 1, 0, 1), "reflect")[..., :-1, :-1])


def foreign(model):
    return Network(ForeignNetwork(Descriptor(model)), type(model).__name__, 2, 3, 3)


@pytest.fixture
def photo():
    return np.ascontiguousarray(skimage.data.astronaut()[:10, 100:114])


@pytest.mark.parametrize("model", [Viewing, InPlace, NotOnePixel])
def test_what_they_need(model, photo):
    upscaler = Upscaler(foreign(model()), engine="torch", precision="fp32")
    doubled = photo.repeat(2, axis=0).repeat(2, axis=1)
    for _ in range(2):
        assert np.array_equal(upscaler(photo), doubled)


def test_an_input_that_is_written_to(photo):
    engine = build_engine(foreign(InPlace()), CPU, "torch", "fp32")
    lq = torch.rand(1, 3, 4, 5).contiguous(memory_format=torch.channels_last)  # needs no copy for its layout
    before = lq.clone()
    assert torch.equal(engine.run(lq), engine.run(lq))
    assert torch.equal(lq, before)


def test_half_precision(photo, monkeypatch, caplog):
    """Where it was not asked for, float32 is used instead; where it was, one line says why not."""
    monkeypatch.setattr(engines, "candidates", lambda *_: [("torch", "bf16")])
    network = foreign(MixesTypes())
    assert np.array_equal(Upscaler(network)(photo), photo.repeat(2, axis=0).repeat(2, axis=1))
    assert "MixesTypes does not run in bf16" in caplog.text
    with pytest.raises(UserError, match=r"^MixesTypes does not run in bf16"):
        Upscaler(network, precision="bf16")(photo)


def test_swinir_in_half_precision(photo, tmp_path, monkeypatch, caplog):
    """Its masks are float32; the result is spandrel's, whose padding is ours."""
    torch.manual_seed(0)
    from spandrel.architectures.SwinIR import SwinIR

    options = {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2}
    net = SwinIR(**options, img_size=16, upscale=2, upsampler="pixelshuffle", resi_connection="1conv")
    torch.save(net.state_dict(), tmp_path / "swinir.pth")
    network = load_network(tmp_path / "swinir.pth")
    assert engines.candidates(network, torch.device("cuda"), "auto", "auto") == [("torch", "fp32")]
    monkeypatch.setattr(engines, "candidates", lambda *_: [("torch", "bf16")])
    upscaler = Upscaler(network)
    for image in (skimage.data.astronaut()[:20, :24], photo, photo[:3, :2]):  # it fails at the first alone
        lq = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
        sr = spandrel.ModelLoader().load_from_state_dict(net.state_dict())(lq)
        assert (upscaler.upscale_tensor(lq) - sr).abs().max() < 1e-5
    assert "SwinIR fails on 24x20 pixels with torch bf16: " in caplog.text


def test_a_size_that_fails_ends_one_picture(workdir, photo, monkeypatch, capsys):
    monkeypatch.setattr("gramgan_plugin.inference.upscaler.load_network", lambda *_: foreign(NotOnePixel()))
    monkeypatch.setattr("gramgan_plugin.inference.upscaler.resolve_weights", lambda name: name)
    (workdir / "in").mkdir()
    for name, image in (("a", photo), ("b", photo[:1, :1]), ("c", photo)):
        Image.fromarray(image).save(f"in/{name}.png")
    assert main(["upscale", "in", "-o", "out", "-m", "x.pth", "--engine", "torch"]) == 3
    assert sorted(path.name for path in (workdir / "out").iterdir()) == ["a.png", "c.png"]
    output = capsys.readouterr().out
    assert "in/b.png: NotOnePixel fails on 1x1 pixels with torch fp32: " in output


def test_another_engine_that_fails_later(photo, network, monkeypatch, caplog):
    """Where the engine was not asked for, torch goes on."""

    def fails(lq):
        raise ValueError("no kernel")

    for engine, used in (("auto", True), ("openvino", False)):
        upscaler = Upscaler(network, engine=engine, precision="fp32")
        monkeypatch.setattr(upscaler, "engine", engines.Engine("openvino", "fp32", fails))
        if used:
            assert np.array_equal(upscaler(photo), Upscaler(network, engine="torch", precision="fp32")(photo))
            assert "RRDBNet fails on 14x10 pixels with openvino fp32: no kernel" in caplog.text
        else:
            with pytest.raises(UserError, match="with openvino fp32: no kernel"):
                upscaler(photo)


def test_our_own_bugs_stay_visible(photo, network, monkeypatch):
    upscaler = Upscaler(network, engine="torch", precision="fp32")
    upscaler(photo)

    def fails(lq):
        raise RuntimeError("a bug")

    monkeypatch.setattr(upscaler, "engine", engines.Engine("torch", "fp32", fails))
    with pytest.raises(RuntimeError, match="a bug"):
        upscaler(photo)
