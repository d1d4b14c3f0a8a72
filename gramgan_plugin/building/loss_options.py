"""Build losses and the step's other parts from a ``train`` section, and check that D suits them."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gramgan_plugin.building.resources import open_resources
from gramgan_plugin.errors import OptionError
from gramgan_plugin.steps.balance import build_balance
from gramgan_plugin.steps.regularization import InstanceNoise
from gramgan_plugin.steps.terms import PENALTY, PENALTY_FORM, Term, form_of
from gramgan_plugin.steps.update import Update
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import did_you_mean

# What constructors raise for options that they do not take.
REFUSALS = (TypeError, ValueError, NotImplementedError, AssertionError)


def construct_loss(key: str, cls: Any, options: Mapping[str, Any]) -> nn.Module:
    """Build a loss, with the files that its options name opened.

    Args:
        key: where the block stands, for messages.
        cls: the loss's class.
        options: its arguments.

    Raises:
        OptionError: if it does not take them.
    """
    opened = opened_options(key, cls, options)
    try:
        loss: nn.Module = cls(**opened)
        return loss
    except OptionError as error:  # of a database; it begins with the block where a texture loss usually stands
        own, usual = str(error), "gram_patch_opt."
        raise OptionError(f"{key}.{own.removeprefix(usual)}" if own.startswith(usual) else own) from error
    except REFUSALS as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown:
            known = inspect.signature(cls).parameters
            hint = did_you_mean(unknown[1], known, "")
            raise OptionError(f"{key}.{unknown[1]}: unknown option of {cls.__name__}{hint}") from error
        raise OptionError(f"{key}: {cls.__name__}: {error}") from error


def build_extras(train: Mapping[str, Any], build_loss: Callable[[str, Mapping[str, Any]], nn.Module]) -> dict[str, Any]:
    """Build what a ``train`` section gives the step besides terms, such as the balance, D's penalty, the noise.

    Args:
        train: the section.
        build_loss: builds a loss from the path of its block and the block.

    Returns:
        Arguments of ``GANStep``.

    Raises:
        OptionError: for a value that cannot be used.
    """
    extras: dict[str, Any] = {
        "accumulate": int(train.get("accumulate") or 1),
        "net_d_every": int(train.get("net_d_every", 1)),
        "net_d_iters": int(train.get("net_d_iters", 1)),
        "net_d_init_iters": int(train.get("net_d_init_iters", 0)),
    }
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


def build_update(
    train: Mapping[str, Any],
    optimizers: Mapping[str, Optimizer],
    networks: Mapping[str, nn.Module],
    scaler: "torch.amp.GradScaler | None",
) -> Update:
    """Return the optimizers' guarded step, as a ``train`` section sets it.

    Args:
        train: ``clip_grad_norm_g``, ``clip_grad_norm_d`` and ``max_grad_ratio``.
        optimizers: by name (``g``, ``d``).
        networks: theirs, by the same names.
        scaler: the gradient scaler of the losses, or None.
    """
    clip = {letter: train[key] for letter in optimizers if train.get(key := f"clip_grad_norm_{letter}") is not None}
    return Update(optimizers, networks, clip=clip, scaler=scaler, max_grad_ratio=train.get("max_grad_ratio"))


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


def check_average(train: Mapping[str, Any], terms: Sequence[Term]) -> None:
    """Check that there are averaged weights where a term reads their SR.

    Raises:
        OptionError: if there are none.
    """
    if not train.get("ema_decay") and any(term.reads_average for term in terms):
        raise OptionError("train.ema_decay: missing, but a loss needs the averaged weights; set it, such as 0.999")


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
