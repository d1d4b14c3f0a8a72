from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import pytest

from gramgan_plugin.config import check_options, load_options
from gramgan_plugin.errors import OptionError
from tests.messages import assert_message


def _set(options: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = deepcopy(options)
    section = changed
    *way, last = path.split(":")
    for key in way:
        section = section[key]
    section[last] = value
    return changed


class TestCheck:
    def test_an_ablation_file(self):
        with pytest.raises(OptionError, match=r"^variants: .* `basicsr ablate"):
            check_options(load_options(["ablation_lite"]))

    def test_smoke(self, tiny_options):
        check_options(tiny_options)

    @pytest.mark.parametrize(
        ("path", "value", "kind"),
        [
            ("model_type", "GramGanModel", "did you mean 'GramGANModel'"),
            ("network_g:num_feet", 8, "did you mean 'num_feat'"),
            ("network_d:type", "GramGANDiscriminatr", "did you mean 'GramGANDiscriminator'"),
            ("train:gram_patch_opt:pach_size", 4, "did you mean 'patch_size'"),
            ("train:pixle_opt", {"type": "L1Loss"}, "did you mean 'pixel_opt'"),
            ("train:optim_g:beta", [0, 1], "did you mean 'betas'"),
            ("train:optim_g:type", "Adamm", "no optimizer 'Adamm'; did you mean"),
            ("train:scheduler:periods", [1], "unknown option of CosineRestartWarmupLR"),
            ("train:scheduler:type", "CosineRestartLR", "no schedule named"),
            ("val:metrics:psnr:test_y_chanel", True, "did you mean 'test_y_channel'"),
            ("val:metrics:psnr:type", "calculate_psrn", "did you mean 'calculate_psnr'"),
            ("datasets:train:type", "PairedSRDatset", "no dataset named"),
            ("train:pixel_opt:type", "CharbonierLoss", "no loss named 'CharbonierLoss' is registered; did you mean"),
        ],
    )
    def test_mistakes(self, tiny_options, path, value, kind):
        with pytest.raises(OptionError) as caught:
            check_options(_set(tiny_options, path, value))
        assert_message(caught.value, path.replace(":", "."), kind)
        assert "\n" not in str(caught.value)

    def test_all_at_once(self, tiny_options):
        wrong = _set(_set(tiny_options, "network_g:num_feet", 8), "train:optim_d:lrr", 1)
        with pytest.raises(OptionError) as caught:
            check_options(wrong)
        assert len(str(caught.value).splitlines()) == 2
