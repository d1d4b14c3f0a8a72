"""Options of small models, and what tests read from models."""

from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import torch

from gramgan_plugin.config import resolve_options


def resolved(options: dict[str, Any]) -> dict[str, Any]:
    return resolve_options(options, is_train=True) | {"rank": 0, "world_size": 1}


def esrgan_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options that upstream's ESRGANModel and ours both understand, at the size upstream's discriminator takes."""
    options = deepcopy(options)
    options["network_d"] = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 2}
    options["train"] = {
        "ema_decay": 0.9,
        "optim_g": {"type": "Adam", "lr": 1e-3},
        "optim_d": {"type": "Adam", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [50], "gamma": 0.5},
        "total_iter": 4,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 0.01},
        "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.005},
    }
    return options


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}
