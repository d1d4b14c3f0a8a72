"""Metrics as option files name them."""

import numpy as np
import pytest
import skimage.data
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

import gramgan_plugin.registration  # noqa: F401
from gramgan_plugin.evaluation import registered_metrics
from gramgan_plugin.evaluation.feature_similarity import fsim, gmsd
from gramgan_plugin.evaluation.texture_distance import patch_swd, texture_distance

GT = np.ascontiguousarray(skimage.data.coffee()[40:168, 100:260, ::-1])  # BGR
SR = np.clip(GT.astype(int) + np.random.default_rng(0).integers(-20, 21, GT.shape), 0, 255).astype(np.uint8)


def tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None]


def test_all_are_registered():
    assert all(name in METRIC_REGISTRY for name in registered_metrics.__all__)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("calculate_gmsd", gmsd),
        ("calculate_fsim", fsim),
        ("calculate_texture_distance", texture_distance),
        ("calculate_patch_swd", patch_swd),
    ],
)
def test_the_functions(name, function):
    value = calculate_metric({"img": SR, "img2": GT}, {"type": name, "crop_border": 4})
    assert value == pytest.approx(float(function(tensor(SR), tensor(GT), 4)), rel=1e-12)
    channels_first = {"img": SR.transpose(2, 0, 1), "img2": GT.transpose(2, 0, 1)}
    assert calculate_metric(channels_first, {"type": name, "crop_border": 4, "input_order": "CHW"}) == value


def test_mse():
    value = calculate_metric({"img": SR, "img2": GT}, {"type": "calculate_mse", "crop_border": 4})
    difference = SR[4:-4, 4:-4].astype(float) - GT[4:-4, 4:-4]
    assert value == pytest.approx(np.square(difference).mean())


def test_lr_psnr():
    from basicsr.utils.matlab_functions import imresize

    value = calculate_metric({"img": SR, "img2": GT}, {"type": "calculate_lr_psnr", "scale": 4})
    low = [np.clip(imresize(image / 255, 0.25) * 255, 0, 255).round() for image in (SR, GT)]
    assert value == pytest.approx(20 * np.log10(255) - 10 * np.log10(np.square(low[0] - low[1]).mean()), abs=1e-3)
