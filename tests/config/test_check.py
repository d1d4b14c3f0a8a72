from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import pytest

from gramgan_plugin.config import check_options, load_options
from gramgan_plugin.errors import OptionError


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
        with pytest.raises(OptionError, match=r"variants: this is an ablation file, for `basicsr ablate -opt FILE`"):
            check_options(load_options(["ablation_lite"]))

    def test_smoke(self, tiny_options):
        check_options(tiny_options)

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (
                "model_type",
                "GramGanModel",
                "model_type: no model named 'GramGanModel' is registered; did you mean 'GramGANModel'?",
            ),
            ("network_g:num_feet", 8, "network_g.num_feet: unknown option of RRDBNet; did you mean 'num_feat'?"),
            ("network_d:type", "GramGANDiscriminatr", "did you mean 'GramGANDiscriminator'"),
            (
                "train:gram_patch_opt:pach_size",
                4,
                "train.gram_patch_opt.pach_size: unknown option of GramPatchLoss; did you mean 'patch_size'?",
            ),
            ("train:pixle_opt", {"type": "L1Loss"}, "train.pixle_opt: unknown option; did you mean 'pixel_opt'?"),
            ("train:optim_g:beta", [0, 1], "train.optim_g.beta: unknown option of Adam; did you mean 'betas'"),
            ("train:optim_g:type", "Adamm", "train.optim_g.type: torch has no optimizer 'Adamm'; did you mean"),
            ("train:scheduler:periods", [1], "train.scheduler.periods: unknown option of CosineRestartWarmupLR"),
            ("train:scheduler:type", "CosineRestartLR", "train.scheduler.type: no schedule named"),
            (
                "val:metrics:psnr:test_y_chanel",
                True,
                "val.metrics.psnr.test_y_chanel: unknown option of calculate_psnr; did you mean 'test_y_channel'?",
            ),
            ("val:metrics:psnr:type", "calculate_psrn", "did you mean 'calculate_psnr'"),
            ("datasets:train:type", "PairedSRDatset", "datasets.train.type: no dataset named"),
            (
                "train:extra_terms",
                {"a": {"type": "CharbonierLoss"}},
                "train.extra_terms.a.type: no loss named 'CharbonierLoss' is registered; did you mean",
            ),
        ],
    )
    def test_mistakes(self, tiny_options, path, value, message):
        with pytest.raises(OptionError) as caught:
            check_options(_set(tiny_options, path, value))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_all_at_once(self, tiny_options):
        wrong = _set(_set(tiny_options, "network_g:num_feet", 8), "train:optim_d:lrr", 1)
        with pytest.raises(OptionError) as caught:
            check_options(wrong)
        assert len(str(caught.value).splitlines()) == 2
