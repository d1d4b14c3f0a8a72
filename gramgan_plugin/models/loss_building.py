"""Build losses of BasicSR's registry from their option blocks."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gramgan_plugin.building.loss_options import construct_loss
from gramgan_plugin.registries import lookup


def build_loss(key: str, block: Mapping[str, Any]) -> nn.Module:
    """Build the loss that an option block names.

    Args:
        key: the path of the block, for messages.
        block: ``type`` and its arguments.

    Raises:
        OptionError: if no such loss is registered, or it does not take these arguments.
    """
    options = dict(block)
    return construct_loss(key, lookup("loss", options.pop("type", None), f"{key}.type"), options)
