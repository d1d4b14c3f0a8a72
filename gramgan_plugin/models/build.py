"""Build a model of any registered class, with the fixes of `basicsr_fixes`; fetch the weights that it needs."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any
from urllib.error import URLError

from gramgan_plugin.building.loss_options import opened_options
from gramgan_plugin.checkpoints.vgg19 import UPSTREAM_WEIGHTS, default_weights
from gramgan_plugin.errors import UserError
from gramgan_plugin.models.basicsr_fixes import HostFixes
from gramgan_plugin.models.components import components
from gramgan_plugin.registries import lookup


def build_model(opt: dict[str, Any]) -> Any:
    """Build the model that ``opt["model_type"]`` names: BasicSR's, ours or a third party's.

    Args:
        opt: resolved options. The model gets a copy, since BasicSR's models change their options.

    Raises:
        OptionError: if no model of that name is registered.
        UserError: if weights that the model needs cannot be fetched.
    """
    cls = lookup("model", opt["model_type"], "model_type")
    opt = deepcopy(opt)
    for key in opt:
        if key.startswith("network_") and opt[key]:
            lookup("arch", opt[key]["type"], f"{key}.type")  # registers spandrel's architectures
    if not issubclass(cls, HostFixes):
        cls = type(cls.__name__, (HostFixes, cls), {"__module__": cls.__module__})
        for component in components(opt):  # BasicSR's models build losses from the options themselves
            if component.kind == "loss":
                component.options.update(opened_options(component.where, component.constructor(), component.options))
    try:
        return cls(opt)
    except URLError as error:
        # Our loader reports the file; BasicSR's PerceptualLoss uses torchvision's error, which names no file.
        raise UserError(
            f"{cls.__name__}: weights cannot be fetched ({error.reason}); if BasicSR's PerceptualLoss needs "
            f"them, fetch torchvision's {UPSTREAM_WEIGHTS.name} elsewhere and put it at {UPSTREAM_WEIGHTS}"
        ) from error


def fetch_weights(opt: Mapping[str, Any]) -> None:
    """Download the public weights that an option file's losses need, if they are not on this machine.

    Args:
        opt: options.

    Raises:
        UserError: if they are damaged, or cannot be downloaded.
    """
    for component in components(opt):
        resources = getattr(component.constructor(), "resources", {}) if component.kind == "loss" else {}
        for name, kind in resources.items() if isinstance(resources, Mapping) else ():
            value = component.options.get(name)
            layer_alone = kind == "vgg19_layer" and isinstance(value, Mapping) and value.get("vgg_weights") is None
            if layer_alone or (kind == "vgg19_weights" and value is None):
                default_weights()
                return
