from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from basicsr.archs import build_network

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import check_options
from gramgan_plugin.config.files_weights import check_weights
from gramgan_plugin.config.findings import Findings
from tests.config.problems import problems
from tests.messages import assert_message

VGG19 = "experiments/pretrained_models/vgg19-dcbb9e9d.pth"
PAGE = b"<!DOCTYPE html><html>Sign in</html>"


def _weights(options: dict[str, Any], network: str = "network_g", **changed: Any) -> dict[str, torch.Tensor]:
    return build_network({**options[network], **changed}).state_dict()


def _vgg19(deepest: int) -> dict[str, torch.Tensor]:
    """torchvision's VGG19 down to the convolution of this number in ``features``, without values."""
    from torchvision.models import vgg19

    with torch.device("meta"):
        net = vgg19(weights=None)
    state = {name: torch.zeros(value.shape) for name, value in net.state_dict().items() if name.startswith("features")}
    return {name: value for name, value in state.items() if int(name.split(".")[1]) <= deepest}


class TestNetworks:
    @pytest.mark.parametrize("network", ["network_g", "network_d"])
    def test_weights_that_fit(self, tiny_options, workdir, network):
        torch.save({"params": _weights(tiny_options, network)}, "x.pth")
        tiny_options["path"][f"pretrain_{network}"] = "x.pth"
        before = torch.get_rng_state()
        assert problems(tiny_options) == []
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (PAGE, "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "a Git LFS pointer"),
            (b"PK\x03\x04 cut", "its end is missing"),
        ],
    )
    def test_no_checkpoint(self, tiny_options, workdir, content, kind):
        Path("g.pth").write_bytes(content)
        tiny_options["path"]["pretrain_network_g"] = "g.pth"
        (problem,) = problems(tiny_options)
        assert_message(problem, "path.pretrain_network_g: g.pth", kind)

    def test_another_network(self, tiny_options, workdir):
        torch.save(_weights(tiny_options, num_feat=16), "g.pth")
        for strict in (True, False):
            tiny_options["path"] |= {"pretrain_network_g": "g.pth", "strict_load_g": strict}
            (problem,) = problems(tiny_options)
            kind = ("13 of 42 tensors", "g.pth", "shape: conv_first.weight (16, 3, 3, 3) for (8, 3, 3, 3)")
            assert_message(problem, "path.pretrain_network_g: RRDBNet", *kind)

    def test_strict_and_not(self, tiny_options, workdir):
        weights = _weights(tiny_options)
        del weights["conv_last.bias"]
        torch.save(weights, "g.pth")
        tiny_options["path"]["pretrain_network_g"] = "g.pth"
        (problem,) = problems(tiny_options)
        assert_message(problem, "path.pretrain_network_g: RRDBNet", "path.strict_load_g: false")
        tiny_options["path"]["strict_load_g"] = False
        assert problems(tiny_options) == []

    def test_a_network_that_computes_while_it_is_built(self, tiny_options, workdir):
        """On the meta device that is impossible."""
        tiny_options["network_g"] = {
            "type": "SwinIR",
            "upscale": 4,
            "img_size": 16,
            "window_size": 8,
            "embed_dim": 12,
            "depths": [2],
            "num_heads": [2],
            "upsampler": "pixelshuffledirect",
        }
        torch.save({"params": _weights(tiny_options)}, "fits.pth")
        torch.save({"params": _weights(tiny_options, embed_dim=24)}, "other.pth")
        tiny_options["path"]["pretrain_network_g"] = "fits.pth"
        assert problems(tiny_options) == []
        tiny_options["path"]["pretrain_network_g"] = "other.pth"
        (problem,) = problems(tiny_options)
        assert_message(problem, "path.pretrain_network_g: SwinIR", "of another shape")

    def test_a_network_that_cannot_be_built(self, tiny_options, workdir):
        torch.save(_weights(tiny_options), "g.pth")
        tiny_options["path"]["pretrain_network_g"] = "g.pth"
        tiny_options["network_g"]["num_feat"] = -1
        found = Findings()
        check_weights(tiny_options, False, found)
        assert found.errors == []
        (warning,) = found.warnings
        assert_message(warning, "path.pretrain_network_g: g.pth", "not compared", "cannot be built")

    def test_keys(self, tiny_options, workdir):
        torch.save({"params": _weights(tiny_options), "params_ema": _weights(tiny_options)}, "g.pth")
        tiny_options["path"] |= {"pretrain_network_g": "g.pth", "param_key_g": "ema"}
        (problem,) = problems(tiny_options)
        assert_message(problem, "path.param_key_g", "g.pth has no weights under 'ema'; it has params, params_ema")
        for key in ("params_ema", None):
            tiny_options["path"]["param_key_g"] = key
            assert problems(tiny_options) == []

    def test_the_key_that_a_converted_file_had(self, tiny_options, workdir):
        torch.save({"params": _weights(tiny_options), "params_ema": _weights(tiny_options)}, "g.pth")
        assert main(["convert", "g.pth", "--to", "safetensors", "-o", "g.safetensors"]) == 0
        tiny_options["path"] |= {"pretrain_network_g": "g.safetensors", "param_key_g": "params_ema"}
        assert problems(tiny_options) == []
        tiny_options["path"]["param_key_g"] = "params"
        (problem,) = problems(tiny_options)
        assert_message(problem, "path.param_key_g", "g.safetensors has no weights under 'params'")

    def test_what_a_resumed_run_does_not_read(self, tiny_options, workdir):
        Path("g.pth").write_bytes(PAGE)
        tiny_options["path"]["pretrain_network_g"] = "g.pth"
        assert problems(tiny_options, resumed=True) == []
        tiny_options["path"]["ignore_resume_networks"] = ["network_g"]
        assert len(problems(tiny_options, resumed=True)) == 1
        tiny_options["path"]["ignore_resume_networks"] = ["net_g"]
        (problem,) = problems(tiny_options, resumed=True)
        assert_message(problem, "path.ignore_resume_networks", "'net_g' is not a network")


class TestResumeState:
    def test_what_is_no_state(self, tiny_options, workdir):
        torch.save({"params": _weights(tiny_options)}, "1.state")
        tiny_options["path"]["resume_state"] = "1.state"
        (problem,) = problems(tiny_options)
        assert_message(problem, "path.resume_state: 1.state", "not a training state")
        Path("1.state").write_bytes(PAGE)
        (problem,) = problems(tiny_options)
        assert_message(problem, "path.resume_state: 1.state", "a web page")
        torch.save({"iter": 1, "optimizers": [], "schedulers": []}, "1.state")
        assert problems(tiny_options) == []


class TestVGG:
    @pytest.fixture
    def options(self, tiny_options, workdir) -> dict[str, Any]:
        torch.save(_vgg19(deepest=10), "vgg.pth")
        tiny_options["train"]["perceptual_opt"] = {"type": "VGGPerceptualLoss", "vgg_weights": "vgg.pth"}
        return tiny_options

    def test_layers_that_the_file_lacks(self, options):
        (problem,) = problems(options)
        assert_message(problem, "train.perceptual_opt.vgg_weights: vgg.pth", "no features.12.weight (conv3_2)")
        options["train"]["perceptual_opt"]["layer_weights"] = {"conv3_1": 1.0, "relu1_2": 0.5}
        assert problems(options) == []
        options["train"]["perceptual_opt"]["layer_weights"] = {"conv3_2": None, "relu1_2": 0.5}
        assert problems(options) == []
        assert check_options(options) == []

    def test_features_of_the_texture_loss(self, options):
        block = options["train"]["gram_patch_opt"]
        options["train"] = {key: value for key, value in options["train"].items() if key != "perceptual_opt"}
        block["features"] = {"layer": "conv3_2", "vgg_weights": "vgg.pth"}
        (problem,) = problems(options)
        assert_message(problem, "train.gram_patch_opt.features.vgg_weights: vgg.pth", "no features.12.weight")
        block["features"]["layer"] = "conv2_2"
        assert problems(options) == []

    def test_the_usual_place(self, options):
        """Which is where a page that was fetched by mistake lies, too."""
        del options["train"]["perceptual_opt"]["vgg_weights"]
        Path(VGG19).parent.mkdir(parents=True)
        Path(VGG19).write_bytes(PAGE)
        (problem,) = problems(options)
        assert_message(problem, f"train.perceptual_opt.vgg_weights: {VGG19}", "a web page")

    def test_upstreams_perceptual_loss_reads_all_of_it(self, options):
        """Also the classifier, and strictly."""
        options["train"]["perceptual_opt"] = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1}}
        Path(VGG19).parent.mkdir(parents=True)
        Path(VGG19).write_bytes(PAGE)
        (problem,) = problems(options)
        assert_message(problem, f"train.perceptual_opt: {VGG19}", "a web page")
        torch.save(_vgg19(deepest=10), VGG19)
        (problem,) = problems(options)
        assert_message(problem, "train.perceptual_opt: VGG", "10 of 38 tensors", "BasicSR's PerceptualLoss reads vgg19")

    def test_a_file_of_other_shapes(self, options):
        torch.save(_vgg19(deepest=10) | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, "vgg.pth")
        (problem,) = problems(options)
        kind = "features.0.weight is (64, 1, 3, 3), not (64, 3, 3, 3)"
        assert_message(problem, "train.perceptual_opt.vgg_weights: vgg.pth", kind)


class TestCommands:
    @pytest.fixture
    def wrong(self, tiny_options, write_options) -> tuple[str, str]:
        """Option files to train and to test with, whose weights have not the key asked for."""
        torch.save({"params": _weights(tiny_options)}, "g.pth")
        tiny_options["path"] |= {"pretrain_network_g": "g.pth", "param_key_g": "params_ema"}
        testing = deepcopy(tiny_options)
        testing["datasets"] = {"test": testing["datasets"]["val"]}
        for key in ("train", "network_d"):
            del testing[key]
        return write_options(tiny_options, "train.yml"), write_options(testing, "test.yml")

    def test_each_refuses_it_before_it_begins(self, wrong, capsys):
        train, test = wrong
        for command, file in (("check", train), ("train", train), ("check", test), ("test", test)):
            capsys.readouterr()
            assert main([command, "-opt", file]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert_message(line, f"basicsr {command}: path.param_key_g", "no weights under 'params_ema'; it has params")

    def test_no_preference_is_legal(self, wrong, capsys):
        assert main(["check", "-opt", wrong[1], "--force_yml", "path:param_key_g=~"]) == 0
        assert main(["test", "-opt", wrong[1], "--force_yml", "path:param_key_g=~"]) == 0

    def test_values_that_are_not_finite_are_found_before_they_are_tested(self, wrong, tiny_options, capsys):
        weights = _weights(tiny_options)
        weights["conv_hr.bias"][2] = float("nan")
        torch.save({"params_ema": weights}, "g.pth")
        assert main(["test", "-opt", wrong[1]]) == 2
        assert_message(capsys.readouterr().err, "basicsr test: g.pth", "conv_hr.bias", "not finite")
