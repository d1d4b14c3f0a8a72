import math

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.evaluation.back_projection import lr_psnr
from gramgan_plugin.functional.matlab_bicubic import lq_levels


def photos() -> torch.Tensor:
    crops = [skimage.data.astronaut()[:96, :120], skimage.data.chelsea()[40:136, 80:200]]
    return torch.stack([torch.from_numpy(crop).permute(2, 0, 1) for crop in crops])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gt_is_consistent_with_its_lq(scale: int) -> None:
    gt = photos()
    assert lr_psnr(gt, lq_levels(gt, scale)).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("crop", [0, 3, 4])
def test_basicsrs_resize_and_opencvs_psnr(crop: int) -> None:
    from basicsr.utils.matlab_functions import imresize

    gt = photos()
    lq = lq_levels(gt, 4)
    sr = torch.nn.functional.avg_pool2d(gt.float(), 5, 1, 2).byte()
    expected = []
    for image, small in zip(sr, lq, strict=True):
        reduced = imresize(image.permute(1, 2, 0).numpy() / 255.0, 0.25)
        reduced = np.floor(reduced * 255 + 0.5).clip(0, 255).astype(np.uint8)
        inside = slice(1, -1) if crop else slice(None)
        expected.append(cv2.PSNR(reduced[inside, inside], small.permute(1, 2, 0).numpy()[inside, inside]))
    value = lr_psnr(sr, lq, crop)
    assert value.dtype == torch.float64
    assert value.tolist() == pytest.approx(expected, abs=1e-2)  # BasicSR computes in float32


def test_wrong_input() -> None:
    gt = photos()
    lq = lq_levels(gt, 4)
    for sr, small, crop, what in (
        (gt.float(), lq, 0, "sr: expected uint8 RGB"),
        (gt, lq[:, :1], 0, "lq: expected uint8 RGB"),
        (gt[..., :-1], lq, 0, "whole multiple"),
        (gt[..., :96], lq, 0, "whole multiple"),
        (lq, gt, 0, "whole multiple"),
        (gt[:1], lq, 0, "whole multiple"),
        (gt, lq, 48, "30x24 pixels without 12"),
        (gt, lq, -4, "crop: expected at least 0"),
    ):
        with pytest.raises(ValueError, match=what):
            lr_psnr(sr, small, crop)
