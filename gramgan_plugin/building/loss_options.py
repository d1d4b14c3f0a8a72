"""Build losses from their option blocks, and check that D has the features that they read."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.resources import open_resources
from gramgan_plugin.registries import lookup
from gramgan_plugin.steps.balance import build_balance
from gramgan_plugin.steps.regularization import InstanceNoise
from gramgan_plugin.steps.terms import PENALTY, PENALTY_FORM, Term, form_of
from gramgan_plugin.utils.sections import section

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


def build_extras(train: Mapping[str, Any]) -> dict[str, Any]:
    """Build what a ``train`` section gives the step besides terms: the balance, D's penalty, the instance noise.

    Returns:
        Arguments of ``GANStep``.

    Raises:
        OptionError: for a value that cannot be used.
    """
    extras: dict[str, Any] = {}
    if train.get(PENALTY):
        extras["penalty"] = build_loss(f"train.{PENALTY}", train[PENALTY])
        if form_of(extras["penalty"]) != PENALTY_FORM:
            name = type(extras["penalty"]).__name__
            raise OptionError(f"train.{PENALTY}.type: {name} is no penalty on D's gradient; GradientPenalty is")
    for key, name, build in (
        ("balance", "balance", build_balance),
        ("instance_noise", "noise", lambda options: InstanceNoise(**options)),
    ):
        if train.get(key):
            try:
                extras[name] = build(train[key])
            except REFUSALS as error:
                raise OptionError(f"train.{key}: {error}") from error
    return extras


def check_penalty(block: Mapping[str, Any], net_d: Any) -> None:
    """Check that D suits ``train.d_penalty_opt``.

    Raises:
        OptionError: if it does not.
    """
    batchnorm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net_d.modules())
    if block.get("kind") == "wgan_gp" and batchnorm:
        raise OptionError(
            f"train.{PENALTY}.kind: wgan_gp is a penalty for each sample, but network_d: {type(net_d).__name__} has "
            "BatchNorm, which mixes them; take r1, or another network_d"
        )


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


def check_discriminator(train: Mapping[str, Any], terms: Sequence[Term], net_d: Any) -> None:
    """Check that D returns the features that terms read, and suits its penalty.

    Raises:
        OptionError: if it does not.
    """
    check_penalty(section(train, PENALTY), net_d)
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
