"""The options of this project's networks: values that a constructor refuses, and sizes that do not fit the crop."""

import pytest

from gramgan_plugin.config import check_options
from gramgan_plugin.errors import OptionError
from tests.messages import assert_message

SRGAN_D = {"type": "SRGANDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 64}
SRRESNET = {"type": "SRResNetBN", "num_feat": 8, "num_block": 1}


def _problems(options):
    try:
        check_options(options)
    except OptionError as error:
        return str(error).splitlines()
    return []


class TestGenerators:
    def test_fit(self, tiny_options):
        tiny_options["network_g"] = SRRESNET | {"output": "tanh"}
        assert _problems(tiny_options) == []

    @pytest.mark.parametrize(
        ("given", "where", "kind"),
        [
            ({"output": "sigmoid"}, "network_g.output", "one of linear, tanh, got 'sigmoid'"),
            ({"upscale": 2}, "network_g.upscale", "2, but scale at the top of the file is 4"),
            ({"num_feat": 0}, "network_g.num_feat", "at least 1, not 0"),
        ],
    )
    def test_errors(self, tiny_options, given, where, kind):
        tiny_options["network_g"] = SRRESNET | given
        (problem,) = _problems(tiny_options)
        assert_message(problem, where, kind)

    def test_another_scale(self, tiny_options):
        tiny_options["scale"] = 2
        tiny_options["network_g"] = SRRESNET
        assert_message(_problems(tiny_options), "network_g.upscale", "missing", "by 4, but scale is 2")


class TestDiscriminators:
    def test_fit(self, tiny_options):
        tiny_options["network_d"] = SRGAN_D
        assert _problems(tiny_options) == []

    @pytest.mark.parametrize(
        ("given", "where", "kind"),
        [
            ({"input_size": 96}, "datasets.train.gt_size", "64, but network_d.input_size is 96"),
            ({"num_feat": 0}, "network_d.num_feat", "at least 1, not 0"),
        ],
    )
    def test_errors(self, tiny_options, given, where, kind):
        tiny_options["network_d"] = SRGAN_D | given
        (problem,) = _problems(tiny_options)
        assert_message(problem, where, kind)

    def test_its_size(self, tiny_options):
        tiny_options["network_d"] = SRGAN_D | {"input_size": 72}
        tiny_options["datasets"]["train"]["gt_size"] = 72
        (problem,) = _problems(tiny_options)
        assert_message(problem, "network_d.input_size", "a multiple of 16, got 72")

    @pytest.mark.parametrize(("kind", "multiple"), [("SuRGeCritic", 16), ("UNetDiscriminatorSNTaps", 8)])
    def test_any_multiple(self, tiny_options, kind, multiple):
        tiny_options["network_d"] = {"type": kind, "num_feat": 4}
        tiny_options["train"]["disc_perceptual_opt"]["taps"] = [2, 7]
        for size in (64, 64 + multiple):
            tiny_options["datasets"]["train"]["gt_size"] = size
            assert _problems(tiny_options) == []
        tiny_options["datasets"]["train"]["gt_size"] = 68
        (problem,) = _problems(tiny_options)
        assert_message(problem, "datasets.train.gt_size", f"{kind} takes multiples of {multiple}, not 68")

    def test_taps(self, tiny_options):
        tiny_options["network_d"] = SRGAN_D
        tiny_options["train"]["disc_perceptual_opt"]["taps"] = [9]
        (line,) = _problems(tiny_options)
        assert_message(line, "train.disc_perceptual_opt.taps", "no convolution 9, only 1 to 8: conv0_0, ")
