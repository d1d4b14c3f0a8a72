"""Building a model of any registered class, with the host's faults mended."""

from copy import deepcopy
from typing import Any

from gramgan_plugin.models.host import HostFixes
from gramgan_plugin.registration import lookup


def build_model(opt: dict[str, Any]) -> Any:
    """The model that ``opt["model_type"]`` names: BasicSR's, ours or a third party's.

    Args:
        opt: resolved options. The model gets a copy of its own, since BasicSR's models change theirs.

    Raises:
        OptionError: if no model of that name is registered.
    """
    cls = lookup("model", opt["model_type"], "model_type")
    if not issubclass(cls, HostFixes):
        cls = type(cls.__name__, (HostFixes, cls), {"__module__": cls.__module__})
    return cls(deepcopy(opt))
