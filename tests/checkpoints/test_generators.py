"""Every form of the family's generators: recognised, built, and equal to BasicSR's and spandrel's networks."""

import os
from pathlib import Path

import cv2
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.checkpoints.convert import named_as
from gramgan_plugin.checkpoints.formats import FORMATS
from gramgan_plugin.checkpoints.generators import recognise
from gramgan_plugin.checkpoints.weights_file import read_weights
from gramgan_plugin.cli.main import main
from tests.checkpoints import generators as given_as
from tests.checkpoints.public_srgan import NamedParts, NumberedBlocks, used

FETCHED = Path(os.environ.get("GRAMGAN_TEST_WEIGHTS", "../shared/weights"))
FORMS = [
    ("basicsr", "rrdbnet", dict),
    ("original", "rrdbnet", given_as.original),
    ("original (HR_conv)", "rrdbnet", lambda state: given_as.original(state, "HR_conv")),
    ("old-arch", "rrdbnet", given_as.old_arch),
    ("mmagic", "rrdbnet", given_as.mmagic),
    ("basicsr", "msrresnet", dict),
    ("original", "msrresnet", given_as.original_srresnet),
    ("mmagic", "msrresnet", given_as.mmagic_srresnet),
    ("basicsr", "srvggnet", dict),
]


class TestForms:
    @pytest.mark.parametrize(("form", "network", "rename"), FORMS)
    def test_read_and_equal(self, form, network, rename):
        net = getattr(given_as, network)()
        found = recognise(rename(net.state_dict()))
        assert (found.architecture, found.format, found.scale) == (type(net).__name__, form, 4)
        assert torch.equal(given_as.output(found.build()), given_as.output(net))
        assert list(found.state) == list(net.state_dict()) or network != "rrdbnet"

    @pytest.mark.parametrize("known", FORMATS, ids=lambda known: f"{known.name}-{known.architecture}")
    def test_each_row_of_the_table_goes_there_and_back(self, known):
        net = getattr(
            given_as, {"RRDBNet": "rrdbnet", "MSRResNet": "msrresnet"}.get(known.architecture, "srresnet_bn")
        )()
        if known.architecture.endswith("(tanh)"):
            net = given_as.srresnet_bn(output="tanh")
        there = named_as(recognise(net.state_dict()), known)
        back = recognise(there)
        assert back.format == known.name
        assert back.state.keys() == net.state_dict().keys()
        assert all(torch.equal(back.state[name], tensor) for name, tensor in net.state_dict().items())

    def test_every_row_is_tested_by_hand_written_names(self):
        tested = {(form, {"rrdbnet": "RRDBNet", "msrresnet": "MSRResNet"}.get(network)) for form, network, _ in FORMS}
        tested |= {("basicsr", "SRResNetBN"), ("basicsr", "SRResNetBN (tanh)")}  # TestSRGAN
        tested |= {("SRGAN-PyTorch", "SRResNetBN"), ("SRGAN", "SRResNetBN (tanh)")}
        assert {(known.name, known.architecture) for known in FORMATS} <= tested

    @pytest.mark.parametrize("prefix", ["netG.", "generator.", "net_g_ema.", "generator_ema."])
    def test_prefixes(self, prefix):
        net = given_as.rrdbnet()
        found = recognise({f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()})
        assert torch.equal(given_as.output(found.build()), given_as.output(net))

    def test_averaged_weights_first(self):
        states = [given_as.rrdbnet(seed).state_dict() for seed in (0, 1)]
        both = {f"generator.{name}": tensor for name, tensor in states[0].items()}
        both |= {f"generator_ema.{name}": tensor for name, tensor in states[1].items()}
        assert torch.equal(recognise(both).state["conv_last.bias"], states[1]["conv_last.bias"])


class TestSRGAN:
    """Its generator's public layouts, written as networks of their own in `public_srgan`."""

    @pytest.mark.parametrize("stages", [1, 2, 3])
    @pytest.mark.parametrize("blocks", [5, 11])
    def test_numbered_blocks(self, blocks, stages):
        theirs = used(NumberedBlocks(blocks=blocks, stages=stages))
        found = recognise(theirs.state_dict())
        assert (found.architecture, found.format, found.scale) == ("SRResNetBN (tanh)", "SRGAN", 2**stages)
        assert found.network_g() == {
            "type": "SRResNetBN", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": blocks,
            "upscale": 2**stages, "output": "tanh",
        }  # fmt: skip
        torch.testing.assert_close(given_as.output(found.build()), given_as.output(theirs), rtol=0, atol=1e-6)

    def test_its_names(self):
        """As they are in the repository's own files, of five residual blocks."""
        names = set(NumberedBlocks().state_dict())
        assert {
            "block1.0.weight", "block1.1.weight", "block2.conv1.weight", "block6.bn2.running_mean",
            "block4.prelu.weight", "block7.0.bias", "block7.1.num_batches_tracked", "block8.0.conv.weight",
            "block8.1.prelu.weight", "block8.2.bias",
        } <= names  # fmt: skip
        assert len(names) == 3 + 5 * (4 + 10 + 1) + 2 + 5 + 2 * 3 + 2

    @pytest.mark.parametrize("stages", [1, 2, 3])
    @pytest.mark.parametrize("blocks", [5, 16])
    def test_named_parts(self, blocks, stages):
        theirs = used(NamedParts(blocks=blocks, stages=stages))
        theirs.conv3.bias.data.fill_(0.5)
        found = recognise(theirs.state_dict())
        assert (found.architecture, found.format, found.scale) == ("SRResNetBN", "SRGAN-PyTorch", 2**stages)
        assert found.options["num_block"] == blocks
        assert found.options["output"] == "linear"
        ours = given_as.output(found.build()).clamp(0, 1)
        assert ((ours > 0) & (ours < 1)).float().mean() > 0.5
        torch.testing.assert_close(ours, given_as.output(theirs), rtol=0, atol=1e-5)

    def test_its_other_names(self):
        names = set(NamedParts().state_dict())
        assert {
            "conv1.0.weight", "conv1.1.weight", "trunk.0.rcb.0.weight", "trunk.15.rcb.4.running_var",
            "trunk.9.rcb.2.weight", "conv2.0.weight", "conv2.1.bias", "upsampling.0.upsample_block.0.weight",
            "upsampling.1.upsample_block.2.weight", "conv3.bias",
        } <= names  # fmt: skip
        assert not names & {"trunk.0.rcb.0.bias", "trunk.0.rcb.3.bias", "conv2.0.bias"}

    @pytest.mark.parametrize("output", ["linear", "tanh"])
    def test_ours(self, output):
        net = given_as.srresnet_bn(output=output)
        found = recognise(net.state_dict())
        assert (found.format, found.options["output"]) == ("basicsr", output)
        assert found.state.keys() == net.state_dict().keys()
        assert torch.equal(given_as.output(found.build()), given_as.output(net))

    def test_without_counters(self):
        """Files of torch before 0.4.1 have no ``num_batches_tracked``."""
        theirs = used(NumberedBlocks())
        state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.endswith("tracked")}
        torch.testing.assert_close(given_as.output(recognise(state).build()), given_as.output(theirs))

    @pytest.mark.parametrize(
        "drop", ["block3.conv1.bias", "block1.1.weight", "block7.1.running_var", "block8.2.weight"]
    )
    def test_incomplete(self, drop):
        state = NumberedBlocks().state_dict()
        del state[drop]
        assert recognise(state) is None

    @pytest.mark.parametrize("factor", [1, 9])
    def test_other_steps(self, factor):
        """A single step of 3, which the repository also has, is another network."""
        state = NamedParts(stages=1).state_dict()
        name = "upsampling.0.upsample_block.0"
        state |= {f"{name}.weight": torch.zeros(8 * factor, 8, 3, 3), f"{name}.bias": torch.zeros(8 * factor)}
        assert recognise(state) is None

    @pytest.mark.parametrize("theirs", [NumberedBlocks, NamedParts])
    def test_command_lines(self, theirs, workdir, capsys):
        """Inspected, converted to BasicSR's names and upscaled, also after the conversion, with the same result."""
        net = used(theirs())
        torch.save({"state_dict": net.state_dict(), "epoch": 3}, "srgan.pth")
        cv2.imwrite("lq.png", skimage.data.chelsea()[100:124, 100:132])
        assert main(["inspect", "srgan.pth"]) == 0
        assert "SRResNetBN" in capsys.readouterr().out
        assert main(["convert", "srgan.pth", "--to", "basicsr", "-o", "ours.pth"]) == 0
        assert main(["convert", "srgan.pth", "--to", "safetensors", "-o", "ours.safetensors"]) == 0
        x = torch.from_numpy(cv2.imread("lq.png")[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            expected = (net(x).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
        for weights in ("srgan.pth", "ours.pth", "ours.safetensors"):
            assert main(["upscale", "lq.png", "-o", f"{weights}.png", "-m", weights]) == 0
            assert abs(cv2.imread(f"{weights}.png")[..., ::-1] - expected).max() <= 1


class TestOptions:
    @pytest.mark.parametrize(("scale", "stored"), [(4, 3), (2, 12), (1, 48)])
    def test_pixel_unshuffle(self, scale, stored):
        net = given_as.rrdbnet(scale=scale)
        found = recognise(net.state_dict())
        assert net.conv_first.in_channels == stored
        assert (found.scale, found.in_channels) == (scale, 3)
        assert torch.equal(given_as.output(found.build()), given_as.output(net))
        assert found.network_g() == {
            "type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "num_grow_ch": 4,
            "scale": scale,
        }  # fmt: skip

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_srresnet_and_srvgg(self, scale):
        for net in (given_as.msrresnet(upscale=scale), given_as.srvggnet(upscale=scale)):
            found = recognise(net.state_dict())
            assert found.scale == scale
            assert found.network_g()["type"] == type(net).__name__
            assert torch.equal(given_as.output(found.build()), given_as.output(net))

    def test_srvgg_without_prelu(self):
        net = given_as.srvggnet(act_type="relu")
        assert torch.equal(given_as.output(recognise(net.state_dict()).build()), given_as.output(net))

    @settings(max_examples=25, deadline=None)
    @given(
        feat=st.integers(1, 9), blocks=st.integers(1, 3), grow=st.integers(1, 5), upsample=st.integers(0, 4),
        unshuffle=st.sampled_from([1, 2, 4]), channels=st.sampled_from([1, 3]),
    )  # fmt: skip
    def test_any_rrdbnet(self, feat, blocks, grow, upsample, unshuffle, channels):
        if 2**upsample < unshuffle:
            return
        net = RRDBNet(channels, channels, feat, blocks, grow, upsample, unshuffle)
        found = recognise(net.state_dict())
        assert found.options == {
            "num_in_ch": channels, "num_out_ch": channels, "num_feat": feat, "num_block": blocks, "num_grow_ch": grow,
            "num_upsample": upsample, "unshuffle": unshuffle,
        }  # fmt: skip
        assert found.scale == 2**upsample // unshuffle

    def test_half_precision_is_computed_in_float32(self):
        halves = {name: tensor.half() for name, tensor in given_as.rrdbnet().state_dict().items()}
        assert next(recognise(halves).build().parameters()).dtype == torch.float32


class TestOthers:
    @pytest.mark.parametrize("drop", ["conv_last.bias", "body.1.rdb3.conv5.weight", "conv_first.weight"])
    def test_incomplete(self, drop):
        state = given_as.rrdbnet().state_dict()
        del state[drop]
        assert recognise(state) is None

    @pytest.mark.parametrize(
        "name", ["body.0.rdb1.conv1.weight", "conv_first.weight", "conv_last.weight", "conv_hr.bias"]
    )
    @pytest.mark.parametrize("shape", [(), (0,), (3,), (3, 3), (8, 0, 3, 3), (7, 5, 3, 3), (2, 2, 2, 2, 2)])
    def test_other_shapes(self, name, shape):
        state = given_as.rrdbnet().state_dict() | {name: torch.zeros(shape)}
        assert recognise(state) is None

    def test_other_types(self):
        assert recognise({k: v.long() for k, v in given_as.rrdbnet().state_dict().items()}) is None
        assert recognise({}) is None
        assert recognise({f"body.{number}.weight": torch.zeros(1) for number in range(0, 9999, 101)}) is None


@pytest.mark.skipif(not FETCHED.is_dir(), reason="GRAMGAN_TEST_WEIGHTS names no folder")
class TestRealFiles:
    def test_realesrgan(self):
        spandrel = pytest.importorskip("spandrel")
        state = read_weights(FETCHED / "realesr-animevideov3.pth").state
        theirs = spandrel.ModelLoader().load_from_state_dict(dict(state)).model
        assert torch.equal(given_as.output(recognise(state).build()), given_as.output(theirs))

    def test_original_names_one_channel_growth_8(self):
        found = recognise(read_weights(FETCHED / "rrdb_x4_nf16_nb1_gc8_gray_xinntao_keys.pth").state)
        assert (found.format, found.in_channels, found.options["num_grow_ch"]) == ("original (HR_conv)", 1, 8)


@pytest.mark.parametrize("rename", [dict, given_as.original, given_as.old_arch])
def test_spandrel_agrees(rename):
    """It reads growth 32 only."""
    spandrel = pytest.importorskip("spandrel")
    state = rename(given_as.rrdbnet(num_feat=16, num_block=2, num_grow_ch=32).state_dict())
    theirs = spandrel.ModelLoader().load_from_state_dict(dict(state)).model
    assert torch.equal(given_as.output(recognise(state).build()), given_as.output(theirs))


class TestMutated:
    """Whatever the names and shapes: nothing is recognised, or a network that can be built and run."""

    SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 12, 16, 48, 999]), max_size=5)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data(), network=st.sampled_from(["rrdbnet", "msrresnet", "srvggnet", "srresnet_bn"]))
    def test_any(self, data, network):
        names = {name: tensor.to("meta") for name, tensor in getattr(given_as, network)().state_dict().items()}
        for _ in range(data.draw(st.integers(1, 4))):
            name = data.draw(st.sampled_from(sorted(names)))
            how = data.draw(st.integers(0, 3))
            tensor = names.pop(name)
            if how == 0:
                names[name] = torch.empty(data.draw(self.SHAPES), device="meta")
            elif how == 1:
                names[name.replace("0", str(data.draw(st.integers(0, 10**6))))] = tensor
            elif how == 2:
                names[data.draw(st.text(max_size=8)) + name] = tensor
        found = recognise(names)
        if found is not None:
            assert found.scale >= 1
            added = found.state.keys() - names.keys() if network == "srresnet_bn" else ()
            assert all(name.endswith("num_batches_tracked") for name in added)
            there = sum(tensor.numel() for tensor in names.values())
            assert sum(tensor.numel() for tensor in found.state.values()) == there + len(added)

    @pytest.mark.parametrize("count", [10**4, 10**9])
    def test_blocks_by_the_name_alone(self, count):
        state = given_as.rrdbnet().state_dict()
        state[f"body.{count}.rdb1.conv1.weight"] = state["body.0.rdb1.conv1.weight"]
        assert recognise(state) is None
