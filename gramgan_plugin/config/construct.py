"""Construct cheap components, to find the values that they refuse before a run begins."""

from typing import Any

import torch

from gramgan_plugin.archs.gramgan_discriminator_arch import STAGES
from gramgan_plugin.archs.vgg19_arch import LAYERS
from gramgan_plugin.config.consistency_texture import check_values
from gramgan_plugin.config.consistency_training import NEEDS_MORE
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import Key, is_number, is_whole
from gramgan_plugin.config.schema_texture import NEEDS_FILES
from gramgan_plugin.losses.vgg_perceptual_loss import LAYER_WEIGHTS
from gramgan_plugin.models.components import Component
from gramgan_plugin.utils.text import shown_value

# Their constructors load a network's weights.
WITH_WEIGHTS = frozenset({"VGGPerceptualLoss", "PerceptualLoss"})

MASKED = ("MaskedRaGANLoss", "StandardGANLoss")  # the losses with a mask
MASK: dict[str, Key] = {
    "window": Key("whole", "side of the window in pixels", needed="always", least=2),
    "stride": Key("whole", "window: blocks; 1: around each pixel", needed="always", least=1),
    "threshold": Key("number", "smallest standard deviation of luma inside the mask", needed="always", least=0),
    "source": Key("text", "gt, or lq (enlarged)", default="gt", choices=("gt", "lq")),
}
# The enlargements that the networks support.
ENLARGES_BY = {"RRDBNet": (1, 2, 4), "MSRResNet": (2, 3, 4)}


def check_construction(component: Component, found: Findings) -> None:
    """Add an error for each value that a constructor refuses.

    Losses of this package and of BasicSR are constructed; optimizers and schedules, too, for a single weight; networks
    of this package, without memory for their weights. Other networks and VGG losses are not: only their values are
    checked.

    Args:
        component: a block whose keys and types are correct.
        found: gets the errors.
    """
    constructor = component.constructor()
    options = {key: value for key, value in component.options.items() if key != "type"}
    if component.kind == "arch":
        _check_network(component, constructor, options, found)
    elif component.kind == "loss":
        _check_loss(component, constructor, options, found)
    elif component.kind in ("optimizer", "scheduler"):
        weight = torch.zeros(1, requires_grad=True)
        try:
            if component.kind == "optimizer":
                constructor([weight], **options)
            else:
                # SGD with momentum works with every schedule, also those that change the momentum.
                optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
                schedule = constructor(optimizer, **options)
                optimizer.step()
                if component.options["type"] not in NEEDS_MORE:
                    schedule.step()
        except Exception as error:  # torch's constructors can raise anything
            _refused(component, error, found)


def _check_loss(component: Component, constructor: Any, options: dict[str, Any], found: Findings) -> None:
    name = constructor.__name__
    if name in WITH_WEIGHTS:
        _check_layers(component, name, options, found)
        return
    if not constructor.__module__.startswith(("gramgan_plugin.", "basicsr.")):
        return
    if name in MASKED and isinstance(options.get("mask"), dict) and not _mask_fits(component, found):
        return
    if name == "GramPatchLoss":
        if not check_values(component.where, options, found):
            return
        options = {key: value for key, value in options.items() if key not in NEEDS_FILES}
    if options.get("reduction") == "none":
        found.error(f"{component.where}.reduction", "none gives no single number; use mean or sum")
        return
    try:
        constructor(**options)
    except (TypeError, ValueError, NotImplementedError, AssertionError) as error:
        _refused(component, error, found)


def _mask_fits(component: Component, found: Findings) -> bool:
    before = len(found.errors)
    mask, where = component.options["mask"], f"{component.where}.mask"
    for name, value in mask.items():
        if name not in MASK:
            found.unknown(where, name, MASK)
        elif (problem := MASK[name].mistake(value)) is not None:
            found.error(f"{where}.{name}", problem)
    for name, key in MASK.items():
        if key.needed and name not in mask:
            found.error(f"{where}.{name}", f"missing; {key.what}")
    return len(found.errors) == before


def _check_layers(component: Component, name: str, options: dict[str, Any], found: Findings) -> None:
    if name == "VGGPerceptualLoss":
        known, criteria, named = set(LAYERS), ("l1", "mse"), LAYER_WEIGHTS
    else:
        from basicsr.archs.vgg_arch import NAMES

        kind = str(options.get("vgg_type", "vgg19"))
        if kind.removesuffix("_bn") not in NAMES:
            found.error(f"{component.where}.vgg_type", f"expected one of {', '.join(NAMES)}, not {shown_value(kind)}")
            return
        # Its l2 calls torch.nn.L2loss, which does not exist.
        known, criteria, named = set(NAMES[kind.removesuffix("_bn")]), ("l1", "fro"), {}
        known |= {layer.replace("conv", "bn") for layer in known} if kind.endswith("_bn") else set()
    where = f"{component.where}.layer_weights"
    weights = options.get("layer_weights", {})
    if isinstance(weights, str) and weights not in named:
        found.error(where, f"expected {', '.join(named)} or a section of layers, not {shown_value(weights)}")
    elif isinstance(weights, dict):
        # In our own loss null removes a layer that an earlier option file named.
        removed = [layer for layer, weight in weights.items() if weight is None and name == "VGGPerceptualLoss"]
        if len(removed) == len(weights) and "layer_weights" in options:
            found.error(where, "names no layer")
        for layer, weight in weights.items():
            if layer not in known:
                found.unknown(where, layer, known)
            elif layer not in removed and not is_number(weight):
                found.error(f"{where}.{layer}", f"expected a number, not {shown_value(weight)}")
    if options.get("criterion", "l1") not in criteria:
        found.error(
            f"{component.where}.criterion",
            f"expected one of {', '.join(criteria)}, not {shown_value(options['criterion'])}",
        )


def _check_network(component: Component, constructor: Any, options: dict[str, Any], found: Findings) -> None:
    name = constructor.__name__
    if name == "GramGANDiscriminator" and options.get("input_size", 192) not in STAGES:
        sizes = ", ".join(map(str, STAGES))
        found.error(
            f"{component.where}.input_size", f"expected one of {sizes}, not {shown_value(options['input_size'])}"
        )
    if name == "VGGStyleDiscriminator" and options.get("input_size", 128) not in (128, 256):
        found.error(
            f"{component.where}.input_size",
            f"{name} takes 128 or 256, not {options['input_size']}; GramGANDiscriminator takes more sizes",
        )
    if constructor.__module__.startswith("gramgan_plugin."):
        small = [key for key in ("num_in_ch", "num_out_ch", "num_feat") if options.get(key, 1) < 1]
        for key in small:
            found.error(f"{component.where}.{key}", f"must be at least 1, not {options[key]}")
        if not small and name != "GramGANDiscriminator":
            try:
                with torch.device("meta"):
                    constructor(**options)
            except ValueError as error:
                _refused(component, error, found)
    if name == "SwinIR":
        sides, window = options.get("img_size", 64), options.get("window_size", 7)
        sides = sides if isinstance(sides, list) else [sides]
        if (
            is_whole(window)
            and window >= 1
            and any(is_whole(side) and side > window and side % window for side in sides)
        ):
            given = f"img_size {', '.join(map(str, sides))}{'' if 'img_size' in options else ', the default,'}"
            found.error(f"{component.where}.window_size", f"{window:g}, but {given} is not a multiple of it")
    for key in ("scale", "upscale"):
        if name in ENLARGES_BY and options.get(key, 4) not in ENLARGES_BY[name]:
            factors = ", ".join(map(str, ENLARGES_BY[name]))
            found.error(f"{component.where}.{key}", f"{name} enlarges by one of {factors}, not by {options[key]}")


def _refused(component: Component, error: Exception, found: Findings) -> None:
    """Add a constructor's message as an error, at the option that the message begins with, if any."""
    text = str(error).strip() or type(error).__name__
    key, colon, rest = text.partition(": ")
    if colon and key in component.options:
        found.error(f"{component.where}.{key}", rest)
    else:
        found.error(component.where, f"{component.options['type']}: {text}")
