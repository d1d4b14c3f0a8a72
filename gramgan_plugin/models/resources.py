"""Open the files that losses need: a patch database, VGG19's weights or one of its layers."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gramgan_plugin.archs.vgg19_arch import LAYERS, VGG19Layer
from gramgan_plugin.checkpoints.vgg19 import load_vgg19
from gramgan_plugin.functional.texture_options import TextureOptions
from gramgan_plugin.losses.vgg_perceptual_loss import resolve_layer_weights
from gramgan_plugin.patchdb.search import PatchSearch
from gramgan_plugin.patchdb.store import check_fits, open_store


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
    opened = dict(options)
    for name, kind in getattr(cls, "resources", {}).items():
        opened[name] = OPENERS[kind](opened.get(name), opened)
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
    """Open a patch database, and check that it fits the texture loss's options; None stays None."""
    if not isinstance(path, str | Path):
        return path
    known = {field.name for field in fields(TextureOptions)}
    texture = TextureOptions(**{name: value for name, value in options.items() if name in known})
    features = options.get("features")
    layer = features if isinstance(features, VGG19Layer) else None
    store = open_store(Path(path))
    if texture.top_k > store.count:
        raise ValueError(f"top_k: {texture.top_k}, but {path} has {store.count} patches")
    check_fits(
        store,
        patch_size=texture.patch_size,
        channels=store.definition.channels,
        normalize=texture.normalize,
        center=texture.center,
        layer=None if layer is None else layer.layer,
        weights=None if layer is None else layer.weights_sha256(),
    )
    return PatchSearch(store, options.get("database_index", "auto"))


OPENERS = {
    "vgg19_weights": open_vgg19_weights,
    "vgg19_layer": open_vgg19_layer,
    "patch_database": open_patch_database,
}
