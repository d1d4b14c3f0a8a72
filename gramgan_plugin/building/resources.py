"""Open the files that losses need: a patch database, VGG19's weights or one of its layers."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.archs.vgg19_arch import LAYERS, VGG19Layer
from gramgan_plugin.checkpoints.vgg19 import load_vgg19
from gramgan_plugin.losses.vgg_perceptual_loss import resolve_layer_weights
from gramgan_plugin.patchdb.search import open_search


def open_resources(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loss's options with the files in its class's ``resources`` opened.

    Args:
        cls: the loss's class; without that attribute, nothing is opened.
        options: from an option file.

    Raises:
        ValueError: if an option has a wrong value.
        OptionError: if a database does not fit the other options.
        UserError: if a file is missing, damaged, or lacks something.
    """
    opened, resources = dict(options), getattr(cls, "resources", {})
    if not isinstance(resources, Mapping):
        raise ValueError("resources: expected a mapping from options to kinds")
    parameters = inspect.signature(cls).parameters if resources else {}
    for name, kind in resources.items():
        if kind not in OPENERS:
            raise ValueError(f"resources: {name} is {kind!r}, which is not one of {', '.join(OPENERS)}")
        if name not in parameters:
            raise ValueError(f"resources: {name} is not an option of the class")
        default = parameters[name].default
        value = opened.get(name, None if default is inspect.Parameter.empty else default)
        opened[name] = OPENERS[kind](value, opened)
    return opened


def open_vgg19_weights(path: Any, options: Mapping[str, Any]) -> Any:
    """Read VGG19's weights down to the deepest layer of ``layer_weights``; return given tensors unchanged."""
    if isinstance(path, Mapping):
        return path
    return load_vgg19(path, resolve_layer_weights(options.get("layer_weights", "gramgan")))


def open_vgg19_layer(block: Any, options: Mapping[str, Any]) -> Any:
    """Build one layer of VGG19 from a block with ``layer`` and perhaps ``vgg_weights``; None stays None."""
    if not isinstance(block, Mapping):
        return block
    if "layer" not in block or set(block) - {"layer", "vgg_weights"}:
        given = ", ".join(map(str, block)) or "nothing"
        raise ValueError(f"features: expected `layer` and perhaps `vgg_weights`, got {given}")
    if block["layer"] not in LAYERS:
        raise ValueError(f"features: expected a layer of VGG19, such as conv1_2, got {block['layer']!r}")
    return VGG19Layer(block["layer"], load_vgg19(block.get("vgg_weights"), [block["layer"]]))


def open_patch_database(path: Any, options: Mapping[str, Any]) -> Any:
    """Open a patch database, to be searched as ``database_index`` says; None stays None."""
    if path is None or hasattr(path, "search"):
        return path
    if not isinstance(path, str | Path):
        raise ValueError(f"database: expected a path, got {path!r}")
    return open_search(Path(path), options.get("database_index", "auto"))


OPENERS = {
    "vgg19_weights": open_vgg19_weights,
    "vgg19_layer": open_vgg19_layer,
    "patch_database": open_patch_database,
}
