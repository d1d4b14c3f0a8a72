"""Building a model of any registered class, with the host's faults mended."""

from copy import deepcopy
from typing import Any
from urllib.error import URLError

from gramgan_plugin.checkpoints.vgg19 import UPSTREAM_WEIGHTS
from gramgan_plugin.errors import UserError
from gramgan_plugin.models.basicsr_fixes import HostFixes
from gramgan_plugin.models.components import components
from gramgan_plugin.models.loss_building import opened_options
from gramgan_plugin.registries import lookup


def build_model(opt: dict[str, Any]) -> Any:
    """The model that ``opt["model_type"]`` names: BasicSR's, ours or a third party's.

    Args:
        opt: resolved options. The model gets a copy of its own, since BasicSR's models change theirs.

    Raises:
        OptionError: if no model of that name is registered.
        UserError: if weights that the model asks for have to be fetched and cannot be.
    """
    cls = lookup("model", opt["model_type"], "model_type")
    opt = deepcopy(opt)
    if not issubclass(cls, HostFixes):
        cls = type(cls.__name__, (HostFixes, cls), {"__module__": cls.__module__})
        for component in components(opt):  # BasicSR's models build losses from the options themselves
            if component.kind == "loss":
                component.options.update(opened_options(component.where, component.constructor(), component.options))
    try:
        return cls(opt)
    except URLError as error:
        # Ours says so itself; BasicSR's PerceptualLoss leaves it to torchvision, which names no file.
        raise UserError(
            f"{cls.__name__}: weights cannot be fetched ({error.reason}); if it is BasicSR's PerceptualLoss that asks "
            f"for them, fetch torchvision's {UPSTREAM_WEIGHTS.name} elsewhere and put it at {UPSTREAM_WEIGHTS}"
        ) from error
