"""Options of traiNNer-redux and neosr: the message about each names the equivalent here."""

import re
from typing import Any, ClassVar

import basicsr  # noqa: F401
import pytest

from gramgan_plugin.config import check_options
from gramgan_plugin.config.foreign_words import KEYS, TYPES
from gramgan_plugin.errors import OptionError
from gramgan_plugin.registries import registered
from tests.messages import assert_message


def _problems(options: dict[str, Any]) -> list[str]:
    try:
        check_options(options)
    except OptionError as error:
        return str(error).splitlines()
    return []


class TestKeys:
    @pytest.mark.parametrize(
        ("where", "key", "value", "write"),
        [
            ("", "use_amp", True, "`train.precision: bf16`"),
            ("", "amp_bf16", True, "`train.precision: bf16`"),
            ("train", "bfloat16", True, "`train.precision: bf16`"),
            ("", "use_channels_last", True, "`train.channels_last: true`"),
            ("", "use_compile", True, "`train.compile: true`"),
            ("", "compile", True, "`train.compile: true`"),
            ("", "fast_matmul", True, "`train.tf32: true`"),
            ("train", "grad_clip", True, "`train.clip_grad_norm_g: 1`"),
            ("train", "ema", 0.999, "`ema_decay`"),
            ("train", "losses", [], "a block for each loss: pixel_opt, "),
            ("logger", "total_iter", 9, "`train.total_iter`"),
            ("val", "val_enabled", True, "leave out the section `val`"),
        ],
    )
    def test_what_to_write(self, tiny_options, where, key, value, write):
        (tiny_options[where] if where else tiny_options)[key] = value
        (problem,) = _problems(tiny_options)
        assert_message(problem, f"{where}.{key}".lstrip("."), "unknown option", write)

    @pytest.mark.parametrize("key", ["lq_size", "patch_size"])
    @pytest.mark.parametrize(("scale", "side", "gt"), [(4, 16, 64), (2, 24, 48), (3, 32, 96)])
    def test_sizes_in_lq_become_those_in_gt(self, tiny_options, key, scale, side, gt):
        tiny_options["scale"] = scale
        tiny_options["datasets"]["train"][key] = side
        del tiny_options["datasets"]["train"]["gt_size"]
        assert_message(_problems(tiny_options), f"datasets.train.{key}", "unknown option", f"write `gt_size: {gt}`")

    def test_a_size_without_a_scale(self, tiny_options):
        tiny_options["scale"] = "four"
        tiny_options["datasets"]["train"]["lq_size"] = 16
        assert_message(_problems(tiny_options), "datasets.train.lq_size", "unknown option", "write `gt_size`")

    @pytest.mark.parametrize("key", ["accum_iter", "accumulate"])
    def test_batches_that_were_added_up_there_are_split_here(self, tiny_options, key):
        tiny_options["datasets"]["train"] |= {key: 4, "batch_size_per_gpu": 6}
        (problem,) = _problems(tiny_options)
        assert_message(problem, f"datasets.train.{key}", "`train.accumulate: 4` and `batch_size_per_gpu: 24`")
        # What it says is right by the check itself.
        del tiny_options["datasets"]["train"][key]
        tiny_options["datasets"]["train"]["batch_size_per_gpu"] = 24
        tiny_options["train"]["accumulate"] = 4
        assert _problems(tiny_options) == []

    @pytest.mark.parametrize("where", KEYS)
    def test_each_is_answered(self, tiny_options, where):
        block = {"": tiny_options, "datasets": tiny_options["datasets"]["train"]}.get(where, tiny_options.get(where))
        block |= dict.fromkeys(KEYS[where])
        for line, key in zip(sorted(_problems(tiny_options)), sorted(KEYS[where]), strict=True):
            assert key in line.partition(": unknown option")[0]
            assert "; write" in line or "; leave out" in line

    def test_a_third_partys_option_of_that_name(self, tiny_options):
        from basicsr.utils.registry import MODEL_REGISTRY

        class SomebodysModelWithAmp:
            """Declares what it reads."""

            Options: ClassVar = {"use_amp": "mixed precision"}

        MODEL_REGISTRY.register(SomebodysModelWithAmp)
        tiny_options |= {"model_type": "SomebodysModelWithAmp", "use_amp": True}
        assert not any(line.startswith("use_amp") for line in _problems(tiny_options))


class TestTypes:
    @pytest.mark.parametrize(
        ("network", "name", "kind"),
        [
            ("network_g", "esrgan", "here it is 'RRDBNet'"),
            ("network_g", "compact", "here it is 'SRVGGNetCompact'"),
            ("network_g", "unet", "no arch named 'unet'"),
            ("network_g", "swinir", "did you mean 'SwinIR'"),
            ("network_g", "UNetDiscriminatorSN", "is a discriminator"),
            ("network_d", "dunet", "here it is 'UNetDiscriminatorSN'"),
            ("network_d", "unetdiscriminatorsn", "did you mean 'UNetDiscriminatorSN"),
            ("network_d", "RRDBNet", "is not a discriminator"),
        ],
    )
    def test_networks(self, tiny_options, network, name, kind):
        tiny_options[network]["type"] = name
        assert_message(_problems(tiny_options), f"{network}.type", kind)

    @pytest.mark.parametrize("name", ["RRDBNett", "ea2fpn", "esrgan", "Unet", "x"])
    def test_under_network_d_only_discriminators_are_offered(self, tiny_options, name):
        tiny_options["network_d"]["type"] = name
        (problem,) = [line for line in _problems(tiny_options) if line.startswith("network_d.type")]
        names = [one.removesuffix("_basicsr") for one, _, _ in registered("arch")]
        others = [one for one in names if "Discriminator" not in one and not one.endswith("Critic")]
        assert "Discriminator" in problem
        assert not {*others} & {*re.findall(r"\w+", problem.replace(f"'{name}'", ""))}

    @pytest.mark.parametrize("name", ["GramGANDiscriminatr", "discriminator"])
    def test_under_network_g_none_is(self, tiny_options, name):
        tiny_options["network_g"]["type"] = name
        (problem,) = [line for line in _problems(tiny_options) if line.startswith("network_g.type")]
        assert "Discriminator" not in problem.replace(name, "")

    @pytest.mark.parametrize(("name", "here"), [("paired", "PairedSRDataset"), ("otf", "RealESRGANDataset")])
    def test_data_sets(self, tiny_options, name, here):
        tiny_options["datasets"]["val"]["type"] = name
        assert_message(_problems(tiny_options), "datasets.val.type", f"here it is '{here}'")

    def test_models(self, tiny_options):
        tiny_options["model_type"] = "image"
        assert_message(_problems(tiny_options), "model_type", "here it is 'GramGANModel'")

    def test_all_that_is_offered_is_registered(self):
        for kind, names in TYPES.items():
            known = {name.removesuffix("_basicsr") for name, _, _ in registered(kind)}
            assert set(names.values()) <= known
