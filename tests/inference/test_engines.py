"""Engines: each near the network's own call, and the choice between them."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.cli.main import build_parser
from gramgan_plugin.errors import UserError
from gramgan_plugin.inference import engines, strips
from gramgan_plugin.inference.engines import Engine, build_engine, candidates, choose_engine
from gramgan_plugin.inference.upscaler import Upscaler
from tests.inference.conftest import rrdb_network, srvgg_network

CPU = torch.device("cpu")


def psnr(a, b):
    return -10 * torch.log10((a - b).square().mean())


@pytest.mark.parametrize("make", [rrdb_network, srvgg_network, lambda: rrdb_network(2)])
class TestEach:
    def test_torch(self, make):
        network, lq = make(), torch.rand(2, 3, 16, 20)
        assert torch.allclose(build_engine(network, CPU, "torch", "fp32").run(lq), network.net(lq), atol=1e-5)
        low = build_engine(network, CPU, "torch", "bf16").run(lq)
        assert low.dtype == torch.float32
        assert psnr(low, network.net(lq)) > 40

    @pytest.mark.parametrize("name", ["openvino", "onnx"])
    def test_compiled(self, make, name):
        pytest.importorskip("openvino" if name == "openvino" else "onnxruntime")
        network = make()
        engine = build_engine(network, CPU, name, "fp32")
        for shape in ((1, 3, 16, 20), (2, 3, 24, 4)):
            lq = torch.rand(shape)
            assert torch.allclose(engine.run(lq), network.net(lq), atol=1e-4)


class TestStrips:
    @pytest.mark.parametrize("upsample", [0, 1, 2, 3])
    def test_equal_to_the_whole(self, monkeypatch, upsample):
        torch.manual_seed(0)
        net = RRDBNet(num_feat=6, num_block=1, num_grow_ch=3, num_upsample=upsample)
        lq = torch.rand(2, 3, 45, 20)
        sizes = []

        def head(feat):
            sizes.append(feat.shape[2])
            return net.head(feat)

        with torch.no_grad():
            monkeypatch.setattr(strips, "STRIP_VALUES", 0)
            result = strips.in_strips(net, net.trunk, head)(lq)
            assert len(sizes) == 4
            assert torch.allclose(result, net(lq), atol=1e-6)

    def test_reach_is_not_exceeded(self):
        """A pixel that is farther away has no influence."""
        for network in (rrdb_network(), rrdb_network(2), srvgg_network()):
            reach = strips.reach(network.net)
            side = 2 * reach + 40
            one = torch.rand(1, 3, side, 8)
            other = one.clone()
            other[:, :, :8] += 1
            changed = (network.net(one) != network.net(other)).any(dim=3).nonzero()[:, 2].max()
            assert changed < network.scale * (8 + reach)
            assert changed > network.scale * (8 + reach / 2)


class TestChoice:
    @pytest.mark.parametrize(("option", "known"), [("--engine", engines.ENGINES), ("--precision", engines.PRECISIONS)])
    def test_the_command_offers_all(self, option, known):
        (commands,) = (action for action in build_parser()._actions if action.choices)
        (choice,) = (action for action in commands.choices["upscale"]._actions if option in action.option_strings)
        assert choice.choices == known

    def test_candidates(self, monkeypatch):
        network = rrdb_network()
        monkeypatch.setattr(engines, "is_installed", lambda name: True)
        monkeypatch.setattr(engines, "bf16_instructions", lambda: ["AMX"])
        assert candidates(network, CPU, "auto", "auto")[0] == ("torch", "fp32")
        assert candidates(network, CPU, "auto", "auto")[1:] == [
            ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"), ("onnx", "fp32"),
        ]  # fmt: skip
        assert candidates(network, CPU, "torch", "bf16") == [("torch", "bf16")]
        assert candidates(network, torch.device("cuda"), "auto", "auto") == [("torch", "fp16")]
        assert candidates(network, torch.device("cuda"), "openvino", "fp32") == [("openvino", "fp32")], "is refused"
        monkeypatch.setattr(engines, "bf16_instructions", list)
        monkeypatch.setattr(engines, "is_installed", lambda name: False)
        assert candidates(network, CPU, "auto", "auto") == [("torch", "fp32")]

    @pytest.mark.parametrize(("slow", "noise", "taken"), [(0.02, 0, "openvino"), (0, 0, "torch"), (0.02, 0.1, "torch")])
    def test_the_fastest_that_is_near(self, monkeypatch, slow, noise, taken):
        """Timings are made, not measured: float32 by torch takes ``slow`` seconds more."""
        network, lq = rrdb_network(), torch.rand(1, 3, 8, 8)

        def build(network, device, name, precision):
            def run(x):
                time.sleep(0.01 + (slow if name == "torch" else 0))
                return network.net(x) + (noise * torch.randn_like(network.net(x)) if name == "openvino" else 0)

            return Engine(name, precision, run)

        monkeypatch.setattr(engines, "build_engine", build)
        monkeypatch.setattr(engines, "candidates", lambda *_: [("torch", "fp32"), ("openvino", "bf16")])
        assert choose_engine(network, CPU, "auto", "auto", lq, 1e9).name == taken
        assert choose_engine(network, CPU, "auto", "auto", lq, 0).name == "torch"

    @pytest.mark.parametrize(
        ("precision", "has", "warned"),
        [("bf16", [], True), ("fp16", ["AMX"], True), ("bf16", ["AMX"], False), ("fp32", [], False)],
    )
    def test_a_precision_that_the_processor_lacks(self, monkeypatch, caplog, precision, has, warned):
        monkeypatch.setattr(engines, "bf16_instructions", lambda: has)
        choose_engine(rrdb_network(), CPU, "torch", precision, torch.rand(1, 3, 8, 8), 0)
        assert ("are slower than in fp32" in caplog.text) == warned

    def test_an_engine_that_fails_is_left_out(self, monkeypatch, caplog):
        network, lq = rrdb_network(), torch.rand(1, 3, 8, 8)
        built = build_engine(network, CPU, "torch", "fp32")

        def build(network, device, name, precision):
            if name == "openvino":
                raise UserError("OpenVINO cannot run it")
            return built

        monkeypatch.setattr(engines, "build_engine", build)
        monkeypatch.setattr(engines, "candidates", lambda *_: [("torch", "fp32"), ("openvino", "fp32")])
        assert choose_engine(network, CPU, "auto", "auto", lq, 1e9) is built

    def test_exception(self, monkeypatch):
        network = rrdb_network()
        with pytest.raises(UserError, match="openvino runs on the CPU, in fp32 or bf16"):
            build_engine(network, CPU, "openvino", "fp16")
        with pytest.raises(UserError, match="openvino runs on the CPU"):
            build_engine(network, torch.device("cuda"), "openvino", "fp32")
        monkeypatch.setitem(__import__("sys").modules, "openvino", None)
        with pytest.raises(UserError, match=r"^openvino is not installed"):
            build_engine(network, CPU, "openvino", "fp32")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu(photo):
    network = rrdb_network()
    result = Upscaler(network, device="cuda")(photo)
    reference = Upscaler(network, device="cpu", engine="torch", precision="fp32")(photo)
    assert np.abs(result.astype(int) - reference).max() <= 3


def test_a_signal_after_openvino():
    """Its plugin has a handler of SIGTERM; if it is unloaded, the next SIGTERM is a segmentation fault."""
    pytest.importorskip("openvino")
    code = """
import gc, os, signal
import numpy as np
from gramgan_plugin.inference.upscaler import Upscaler
Upscaler("4x-RRDB-Lite", engine="openvino")(np.zeros((16, 16, 3), np.uint8))
gc.collect()
received = []
signal.signal(signal.SIGTERM, lambda *_: received.append(1))
os.kill(os.getpid(), signal.SIGTERM)
assert received
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
