"""What ``load_network`` takes from the options, from the file and from nobody."""

import logging
import os
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.models.base_model import BaseModel
from safetensors.torch import save_file
from torch import nn

from gramgan_plugin.cli.main import main
from gramgan_plugin.errors import UserError
from gramgan_plugin.models.basicsr_fixes import HostFixes
from tests.checkpoints import generators as given_as
from tests.messages import assert_message

# A folder with checkpoints fetched elsewhere, such as realesr-animevideov3.pth.
FETCHED = Path(os.environ.get("GRAMGAN_TEST_WEIGHTS", "none"))


class _Model(HostFixes, BaseModel):
    """A model that is all host."""


def _model(path: dict[str, Any]) -> Any:
    return _Model({"num_gpu": 0, "is_train": False, "dist": False, "train": {}, "path": path})


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return RRDBNet(3, 3, num_feat=4, num_block=1, num_grow_ch=2)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def _load_as_upstream_does(path: dict[str, Any]) -> nn.Module:
    """The call of BasicSR's models; the file has params of seed 0 and params_ema of seed 2."""
    net = _net(1)
    load_path, strict = path["pretrain_network_g"], path.get("strict_load_g", True)
    _model(path).load_network(net, load_path, strict, path.get("param_key_g", "params"))
    return net


@pytest.fixture
def both(workdir) -> str:
    torch.save({"params": _net(0).state_dict(), "params_ema": _net(2).state_dict()}, "both.pth")
    return "both.pth"


class TestParamKey:
    @pytest.mark.parametrize("key", ["ema", "params-ema", "param", ""])
    def test_a_key_that_is_asked_for_and_not_there(self, both, key):
        with pytest.raises(UserError) as caught:
            _load_as_upstream_does({"pretrain_network_g": both, "param_key_g": key})
        kind = f"both.pth has no weights under {key!r}; it has params, params_ema"
        assert_message(caught.value, "path.param_key_g", kind)

    @pytest.mark.parametrize(
        ("options", "seed"), [({}, 0), ({"param_key_g": None}, 0), ({"param_key_g": "params_ema"}, 2)]
    )
    def test_a_key_that_is_there(self, both, options, seed, caplog):
        with caplog.at_level(logging.WARNING, logger="basicsr"):
            net = _load_as_upstream_does({"pretrain_network_g": both, **options})
        assert _same(net, _net(seed))
        assert not caplog.records

    def test_the_default_falls_back_with_a_warning(self, workdir, caplog):
        torch.save({"params_ema": _net(2).state_dict()}, "ema.pth")
        with caplog.at_level(logging.WARNING, logger="basicsr"):
            assert _same(_load_as_upstream_does({"pretrain_network_g": "ema.pth"}), _net(2))
        (record,) = caplog.records
        assert record.message.startswith("ema.pth has no params; params_ema ")

    @pytest.mark.parametrize(("key", "fits"), [("params_ema", True), ("params", False)])
    def test_what_convert_made_of_it(self, both, key, fits, capsys):
        """The weights of a safetensors file are under no key; its metadata say under which they were."""
        assert main(["convert", both, "--to", "safetensors", "-o", "mine.safetensors"]) == 0
        path = {"pretrain_network_g": "mine.safetensors", "param_key_g": key}
        if fits:
            assert _same(_load_as_upstream_does(path), _net(2))
        else:
            with pytest.raises(UserError, match=r"^path\.param_key_g: mine\.safetensors has .* 'params'"):
                _load_as_upstream_does(path)

    @pytest.mark.parametrize(("options", "seed"), [({}, 0), ({"param_key_g": "mine"}, 2)])
    def test_the_average_starts_from_what_the_file_has(self, workdir, caplog, options, seed):
        """A model asks for ``params_ema`` by itself; the user's own key comes before the default."""
        torch.save({"params": _net(0).state_dict(), "mine": _net(2).state_dict()}, "x.pth")
        net = _net(1)
        with caplog.at_level(logging.WARNING, logger="basicsr"):
            _model({"pretrain_network_g": "x.pth", **options}).load_network(net, "x.pth", True, "params_ema")
        assert _same(net, _net(seed))
        assert "x.pth has no params_ema" in caplog.text

    def test_each_network_has_its_own(self, both):
        path = {"pretrain_network_g": "g.pth", "param_key_g": "params_ema", "pretrain_network_d": both}
        path["param_key_d"] = "other"
        with pytest.raises(UserError, match=r"^path\.param_key_d: both\.pth has .* 'other'"):
            _model(path).load_network(_net(1), both, True, "other")

    def test_a_bare_state_dict(self, workdir):
        torch.save(_net(0).state_dict(), "bare.pth")
        with pytest.raises(UserError, match=r"^path\.param_key_g: bare\.pth .*under no key"):
            _load_as_upstream_does({"pretrain_network_g": "bare.pth", "param_key_g": "params"})
        for options in ({}, {"param_key_g": None}):
            assert _same(_load_as_upstream_does({"pretrain_network_g": "bare.pth", **options}), _net(0))


class TestFit:
    def _strict_and_not(self, name: str) -> list[str]:
        messages = []
        for strict in (True, False):
            with pytest.raises(UserError) as caught:
                _load_as_upstream_does({"pretrain_network_g": name, "strict_load_g": strict})
            messages.append(str(caught.value))
            assert messages[-1].isprintable()
        return messages

    @pytest.mark.parametrize("rename", [given_as.original, given_as.old_arch, given_as.mmagic])
    @pytest.mark.parametrize("wrapper", [None, "params_ema", "state_dict", "model_state_dict", "model", "net", "g_ema"])
    def test_other_programs_names(self, workdir, rename, wrapper):
        weights = rename(_net(0).state_dict())
        torch.save(weights if wrapper is None else {wrapper: weights}, "x.pth")
        assert _same(_load_as_upstream_does({"pretrain_network_g": "x.pth"}), _net(0))

    def test_safetensors(self, workdir):
        save_file(given_as.original(_net(0).state_dict()), "x.safetensors")
        assert _same(_load_as_upstream_does({"pretrain_network_g": "x.safetensors"}), _net(0))

    @pytest.mark.skipif(not FETCHED.is_dir(), reason="GRAMGAN_TEST_WEIGHTS names no folder")
    def test_a_real_file_of_the_original_esrgan(self, workdir):
        path = str(FETCHED / "rrdb_x4_nf16_nb1_gc8_gray_xinntao_keys.pth")
        net = RRDBNet(1, 1, num_feat=16, num_block=1, num_grow_ch=8)
        _model({"pretrain_network_g": path}).load_network(net, path, True, "params")
        given = torch.load(path, map_location="cpu", weights_only=True)
        assert torch.equal(net.conv_body.weight, given["trunk_conv.weight"])

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
    def test_prefixes_of_wrapped_networks(self, workdir, prefix):
        torch.save({"params": {prefix + name: value for name, value in _net(0).state_dict().items()}}, "x.pth")
        assert _same(_load_as_upstream_does({"pretrain_network_g": "x.pth"}), _net(0))

    def test_less_than_half(self, workdir):
        weights = {name: value for name, value in _net(0).state_dict().items() if name.endswith("bias")}
        torch.save(weights, "x.pth")
        for text in self._strict_and_not("x.pth"):
            assert "that is less than half of the network" in text
            assert "strict_load" not in text

    def test_more_than_half(self, workdir, caplog):
        weights = _net(0).state_dict()
        del weights["conv_last.bias"]
        torch.save(weights, "x.pth")
        with pytest.raises(UserError, match=r"path\.strict_load_g: false"):
            _load_as_upstream_does({"pretrain_network_g": "x.pth"})
        with caplog.at_level(logging.WARNING, logger="basicsr"):
            net = _load_as_upstream_does({"pretrain_network_g": "x.pth", "strict_load_g": False})
        assert torch.equal(net.conv_first.weight, _net(0).conv_first.weight)
        assert "1 not in the file: conv_last.bias" in caplog.text

    def test_names_that_are_no_names(self, workdir):
        torch.save({"params": {"a\nb\x1b[2J": torch.zeros(1)}}, "x.pth")
        for text in self._strict_and_not("x.pth"):
            assert "1 only in the file: a\\nb\\x1b[2J" in text


class TestValues:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, both, value):
        content = torch.load(both, weights_only=True)
        content["params"]["body.0.rdb2.conv1.weight"][0, 0, 0, 0] = value
        torch.save(content, "nan.pth")
        with pytest.raises(UserError, match=r"^nan\.pth: body\.0\.rdb2\.conv1\.weight .* not finite"):
            _load_as_upstream_does({"pretrain_network_g": "nan.pth"})
        net = _load_as_upstream_does({"pretrain_network_g": "nan.pth", "param_key_g": "params_ema"})
        assert _same(net, _net(2))

    @pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.complex64])
    @pytest.mark.parametrize("strict", [True, False])
    def test_types_that_are_no_weights(self, workdir, dtype, strict):
        torch.save(_net(0).state_dict() | {"conv_up1.bias": torch.zeros(4, dtype=dtype)}, "x.pth")
        with pytest.raises(UserError, match=r"^x\.pth: conv_up1\.bias is (bool|int8|complex64)"):
            _load_as_upstream_does({"pretrain_network_g": "x.pth", "strict_load_g": strict})


class TestOtherChannels:
    LUMA = torch.tensor([0.299, 0.587, 0.114])

    def _started(self, channels: int, given: int, adapts: bool = True, **options: int) -> nn.Module:
        torch.manual_seed(0)
        source = RRDBNet(given, given, num_feat=4, num_block=1, num_grow_ch=2, **options)
        torch.save(source.state_dict(), "given.pth")
        net = RRDBNet(channels, channels, num_feat=4, num_block=1, num_grow_ch=2, **options)
        model = _model({"pretrain_network_g": "given.pth"})
        model.opt["train"] = {"adapt_channels": adapts}
        model.load_network(net, "given.pth", True, "params")
        self.source = source
        return net

    @pytest.mark.parametrize("scale", [4, 2, 1])
    def test_gray_for_colours(self, workdir, scale):
        net = self._started(3, 1, scale=scale)
        colours = torch.rand(2, 3, 8, 8)
        gray = (colours * self.LUMA[:, None, None]).sum(1, keepdim=True)
        assert torch.allclose(net(colours), self.source(gray).expand(-1, 3, -1, -1), atol=1e-5)

    @pytest.mark.parametrize("scale", [4, 2, 1])
    def test_colours_for_gray(self, workdir, scale):
        net = self._started(1, 3, scale=scale)
        gray = torch.rand(2, 1, 8, 8)
        expected = (self.source(gray.expand(-1, 3, -1, -1)) * self.LUMA[:, None, None]).sum(1, keepdim=True)
        assert torch.allclose(net(gray), expected, atol=1e-5)

    def test_only_if_asked(self, workdir):
        with pytest.raises(UserError, match=r"of another shape: conv_first\.weight"):
            self._started(3, 1, adapts=False)


class TestOtherScale:
    @pytest.mark.parametrize("scale", [2, 1])
    def test_the_trunk_is_kept(self, workdir, scale):
        torch.save(given_as.original(_net(0).state_dict()), "x4.pth")
        net = RRDBNet(3, 3, scale=scale, num_feat=4, num_block=1, num_grow_ch=2)
        model = _model({"pretrain_network_g": "x4.pth", "strict_load_g": False})
        with pytest.raises(UserError, match=r"path.strict_load_g: false"):
            model.load_network(net, "x4.pth", True, "params")
        model.load_network(net, "x4.pth", False, "params")
        trunk = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("conv_first")}
        assert all(
            torch.equal(tensor, _net(0).state_dict()[name])
            for name, tensor in trunk.items()
            if name != "conv_first.weight"
        )


def test_a_name_of_public_weights(workdir, monkeypatch):
    """A file of that name comes first."""
    given = {"ESRGAN_x4": _net(0), "file": _net(2)}
    torch.save(given["ESRGAN_x4"].state_dict(), "cached.pth")
    monkeypatch.setattr("gramgan_plugin.models.basicsr_fixes.resolve_weights", lambda name: Path("cached.pth"))
    assert _same(_load_as_upstream_does({"pretrain_network_g": "ESRGAN_x4"}), given["ESRGAN_x4"])
    torch.save(given["file"].state_dict(), "ESRGAN_x4")
    assert _same(_load_as_upstream_does({"pretrain_network_g": "ESRGAN_x4"}), given["file"])
