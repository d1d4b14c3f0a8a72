"""Build losses from their option blocks, and check that D has the features that they read."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.resources import open_resources
from gramgan_plugin.registries import lookup
from gramgan_plugin.steps.terms import Term

# What constructors raise for options that they do not take.
REFUSALS = (TypeError, ValueError, NotImplementedError, AssertionError)


def build_loss(key: str, block: Mapping[str, Any]) -> nn.Module:
    """Build the loss that an option block names.

    Args:
        key: the path of the block, for messages.
        block: ``type`` and its arguments.

    Raises:
        OptionError: if no such loss is registered, or it does not take these arguments.
    """
    options = dict(block)
    cls = lookup("loss", options.pop("type", None), f"{key}.type")
    options = opened_options(key, cls, options)
    try:
        return cls(**options)
    except OptionError as error:  # of a database; it begins with the block where a texture loss usually stands
        own, usual = str(error), "gram_patch_opt."
        raise OptionError(f"{key}.{own.removeprefix(usual)}" if own.startswith(usual) else own) from error
    except REFUSALS as error:
        raise OptionError(f"{key}: {cls.__name__}: {error}") from error


def opened_options(key: str, cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loss's options with the files that they name opened, see `open_resources`.

    Args:
        key: where the block stands, for messages.
        cls: the loss's class.
        options: from an option file.

    Raises:
        OptionError: if one of them cannot be used.
    """
    try:
        return open_resources(cls, options)
    except REFUSALS as error:
        raise OptionError(f"{key}: {cls.__name__}: {error}") from error


def check_taps(terms: Sequence[Term], net_d: Any) -> None:
    """Check that D returns the features that terms read.

    Raises:
        OptionError: if it does not.
    """
    for term in terms:
        if not term.taps:
            continue
        if not hasattr(net_d, "resolve_taps"):
            raise OptionError(
                f"network_d: {type(net_d).__name__} does not give its features, which train.disc_perceptual_opt reads; "
                "use GramGANDiscriminator, or take that block out"
            )
        try:
            net_d.resolve_taps(term.taps)
        except ValueError as error:
            raise OptionError(f"train.disc_perceptual_opt.{error}") from error
