"""What ``GramGANModel`` puts together: losses from their option blocks, and whether they and D suit each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from gramgan_plugin.errors import OptionError
from gramgan_plugin.registration import lookup
from gramgan_plugin.steps.terms import AdversarialTerm, DiscPerceptualTerm, Term


def build_loss(key: str, block: Mapping[str, Any]) -> nn.Module:
    """The loss that an option block names.

    Args:
        key: where the block stands, for messages.
        block: ``type`` and its arguments.

    Raises:
        OptionError: if no such loss is registered, or it does not take these arguments.
    """
    options = dict(block)
    cls = lookup("loss", options.pop("type", None), f"{key}.type")
    try:
        return cls(**options)
    except (TypeError, ValueError, NotImplementedError, AssertionError) as error:
        raise OptionError(f"{key}: {cls.__name__}: {error}") from error


def check_terms(terms: Sequence[Term], net_d: nn.Module | None) -> None:
    """D and the terms that use it must be there together, and D must have the convs that are read.

    Raises:
        OptionError: if not.
    """
    adversarial = any(isinstance(term, AdversarialTerm) for term in terms)
    perceptual = [term.loss for term in terms if isinstance(term, DiscPerceptualTerm)]
    if net_d is None:
        if adversarial or perceptual:
            raise OptionError("network_d: missing, but train.gan_opt or train.disc_perceptual_opt needs it")
        return
    if not adversarial:
        raise OptionError("train.gan_opt: missing, so that network_d would not be trained")
    bare: Any = net_d.module if isinstance(net_d, DataParallel | DistributedDataParallel) else net_d
    for loss in perceptual:
        if not hasattr(bare, "resolve_taps"):
            raise OptionError(
                f"network_d: {type(bare).__name__} does not give its features, which train.disc_perceptual_opt reads; "
                "use GramGANDiscriminator, or take that block out"
            )
        try:
            bare.resolve_taps(loss.taps)
        except ValueError as error:
            raise OptionError(f"train.disc_perceptual_opt.taps: {error}") from error
