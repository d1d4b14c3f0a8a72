"""Two processes over gloo, with networks wrapped as MMEngine's MMSeparateDistributedDataParallel wraps them.

That class itself, and MMEngine's launcher, ask for GPUs.
"""

from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.adapters.test_gramgan import TRAIN, batch, model_options, optimizers
from tests.training.two_processes import together

SGD = {"optimizer": {"type": "SGD", "lr": 0.05}}
ALONE = {"pixel_opt": TRAIN["pixel_opt"], "ema_decay": 0.9}
# Warps that each sample has of its own, large enough to be seen in the weights.
ALONE["gram_patch_opt"] = TRAIN["gram_patch_opt"] | {"affine_magnitude": 0.3, "loss_weight": 20.0}


def trained(train: dict[str, Any], with_d: bool, processes: int) -> None:
    """Train three iterations, each process on its share of a batch of two, and save the weights."""
    from gramgan_plugin.adapters.mmengine_registration import GramGAN, register_all

    register_all()
    rank = 0
    if processes > 1:
        distributed.init_process_group("gloo")
        rank = distributed.get_rank()
    torch.manual_seed(0)
    options = model_options(train=train, **({} if with_d else {"discriminator": None}))
    options.pop("type")
    model = GramGAN(**options)
    model.init_weights()
    names = ["generator", "discriminator"][: 1 + with_d]
    for name in names if processes > 1 else ():
        setattr(model, name, DistributedDataParallel(getattr(model, name), broadcast_buffers=False))
    wrappers = optimizers(model, **dict.fromkeys(names, SGD))
    for number in range(3):
        whole = batch(number)
        model.train_step({key: images[rank::processes] for key, images in whole.items()}, wrappers)
    state = {name.replace(".module.", "."): value for name, value in model.state_dict().items()}
    torch.save(state, f"{processes}_{rank}.pth")


@pytest.mark.parametrize("with_d", [False, True])
def test_two_processes(workdir: Path, with_d: bool) -> None:
    ends = together(2, trained, TRAIN if with_d else ALONE, with_d, 2)
    assert [end.error for end in ends] == [None, None], ends[0].stderr[-2000:]
    first, second = (torch.load(f"2_{rank}.pth", weights_only=True) for rank in (0, 1))
    running = ("running_mean", "running_var")  # each process has its own batch's
    for name, value in first.items():
        assert name.endswith(running) or torch.equal(value, second[name]), name
    if not with_d:  # BatchNorm sees each process's own share of the batch
        trained(ALONE, with_d, 1)
        for name, value in torch.load("1_0.pth", weights_only=True).items():
            difference = float((first[name] - value).abs().max())
            assert difference < 1e-5, (name, difference)  # 3e-5 if both drew the first sample's warps
