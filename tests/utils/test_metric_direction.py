import pytest
from basicsr.utils.registry import METRIC_REGISTRY

from gramgan_plugin.evaluation.metrics import LABELS
from gramgan_plugin.utils.metric_direction import LOWER_IS_BETTER, lower_is_better

# The registered name of each metric of a benchmark.
NAMES = {"psnr": "calculate_psnr", "ssim": "calculate_ssim", "texture": "calculate_texture_distance"}
NAMES |= {"swd": "calculate_patch_swd"}


@pytest.mark.parametrize("name", [name for name in LABELS if name not in ("psnr_y", "ssim_y", "lpips_vgg")])
def test_as_the_benchmark_shows_them(name):
    registered = NAMES.get(name, f"calculate_{name}")
    assert registered in METRIC_REGISTRY
    assert lower_is_better({"type": registered}) == (LABELS[name].better == "lower")


def test_the_options_decide():
    assert all(not lower_is_better({"type": name, "better": "higher"}) for name in LOWER_IS_BETTER)
    assert lower_is_better({"type": "calculate_psnr", "better": "lower"})
    assert not lower_is_better({"type": "calculate_psnr", "better": None})
    assert not lower_is_better({})
