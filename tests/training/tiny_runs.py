"""Short runs of a small network, and what they leave."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.config import resolve_options
from gramgan_plugin.models.gramgan_model import GramGANModel
from gramgan_plugin.training.loop import train


def train_run(options: dict[str, Any], **kwargs: Any) -> None:
    train(resolve_options(deepcopy(options), is_train=True, **kwargs))


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights_of(path: Path, key: str = "params") -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)[key]


def same_networks(one: Path, other: Path, iteration: int) -> bool:
    """Whether the networks of two runs are the same in every bit."""
    for net, key in (("net_g", "params"), ("net_g", "params_ema"), ("net_d", "params")):
        weights, others = (weights_of(run / f"models/{net}_{iteration}.pth", key) for run in (one, other))
        if not all(torch.equal(weights[k], others[k]) for k in weights):
            return False
    return True


def built_models(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Will hold the models that are built."""
    built: list[Any] = []
    init = GramGANModel.init_training_settings

    def keep(self: GramGANModel) -> None:
        built.append(self)
        init(self)

    monkeypatch.setattr(GramGANModel, "init_training_settings", keep)
    return built
