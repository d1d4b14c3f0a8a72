from typing import Any

import basicsr  # noqa: F401
import pytest
import skimage.data
import torch
from basicsr.losses.basic_loss import L1Loss
from torch import nn

from gramgan_plugin.archs import GramGANDiscriminator
from gramgan_plugin.losses import DiscPerceptualLoss, GramPatchLoss, MaskedRaGANLoss
from gramgan_plugin.steps.step_state import Batch
from gramgan_plugin.steps.terms import build_terms
from tests.steps.small_step import TAPS, Generator


@pytest.fixture
def batch() -> Batch:
    photo = torch.from_numpy(skimage.data.chelsea()[100:164, 100:228].copy()).permute(2, 0, 1).float() / 255
    gt = torch.stack([photo[..., :64], photo[..., 64:]])
    gt[1, :, :16] = 0.5  # something flat, for the mask
    return Batch(nn.functional.avg_pool2d(gt, 4), gt, iteration=7, manual_seed=3)


@pytest.fixture
def nets() -> tuple[Generator, GramGANDiscriminator]:
    torch.manual_seed(0)
    return Generator(), GramGANDiscriminator(num_feat=4, input_size=64)


@pytest.fixture
def terms() -> Any:
    losses = {
        "train.pixel_opt": L1Loss(),
        "train.gram_patch_opt": GramPatchLoss(center=True),
        "train.disc_perceptual_opt": DiscPerceptualLoss(taps=TAPS),
        "train.gan_opt": MaskedRaGANLoss(),
    }
    return build_terms({key.split(".")[1]: {"type": "x"} for key in losses}, lambda key, block: losses[key])
