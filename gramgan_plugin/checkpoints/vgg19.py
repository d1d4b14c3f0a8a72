"""Find, check and load the weights of VGG19."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from gramgan_plugin.archs.vgg19_arch import BLOCKS, LAYERS
from gramgan_plugin.checkpoints.finite import first_non_finite
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.checkpoints.weights_cache import cache_folder, ensure, hub_folder
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import printable

WEIGHTS_NAME = WEIGHTS["vgg19"].file
UPSTREAM_WEIGHTS = Path("experiments/pretrained_models") / WEIGHTS_NAME
_ADVICE = f"give VGG19 weights with torchvision's key names (features.0.weight), such as {WEIGHTS_NAME}"


def load_vgg19(path: str | Path | None, layers: Iterable[str]) -> dict[str, Tensor]:
    """Load VGG19's weights down to the deepest of some layers.

    Args:
        path: a file with torchvision's key names (``features.0.weight``); None for
            ``experiments/pretrained_models/vgg19-dcbb9e9d.pth`` if it exists, else torchvision's file from
            torch.hub's cache, or from ours (docs/weights.md), where it is downloaded if it is missing.
        layers: names such as ``conv2_2``; at least one.

    Returns:
        Tensors by torchvision's key names.

    Raises:
        ValueError: for an unknown layer, or none.
        UserError: if the weights cannot be read or fetched, lack a layer, or are non-finite.
    """
    layers = list(layers)
    unknown = [layer for layer in layers if layer not in LAYERS]
    if unknown or not layers:
        raise ValueError(f"layers: expected layers of VGG19, such as conv2_2, got {unknown or layers}")
    file = Path(path) if path is not None else default_weights()
    name = printable(str(file))
    try:
        content = load_tensors(file)
    except UserError as error:
        why = str(error).removeprefix(f"{name}: ")
        raise UserError(f"{name}: cannot be read as VGG19 weights: {why}; {_ADVICE}") from error
    problem = vgg19_misfit(content, layers)
    if problem is not None:
        raise UserError(f"{name}: {problem}")
    deepest = max(LAYERS[layer] for layer in layers)
    convs = [place for layer, place in LAYERS.items() if layer.startswith("conv") and place <= deepest]
    weights = {key: content[key] for place in convs for key in (f"features.{place}.weight", f"features.{place}.bias")}
    bad = first_non_finite(weights, "")
    if bad is not None:
        raise UserError(f"{name}: {bad} holds values that are not finite; {_ADVICE}")
    return weights


def vgg19_misfit(weights: object, layers: Iterable[str]) -> str | None:
    """Return why a checkpoint's content cannot serve as VGG19's weights down to these layers, or None if it can.

    Args:
        weights: of ``load_tensors`` or ``read_headers``.
        layers: names such as ``conv2_2``.
    """
    channels, place = 3, 0
    deepest = max(LAYERS[layer] for layer in layers)
    for width, convs in BLOCKS:
        for _ in range(convs):
            for kind, shape in (("weight", (width, channels, 3, 3)), ("bias", (width,))):
                name = f"features.{place}.{kind}"
                value = weights.get(name) if isinstance(weights, Mapping) else None
                if not isinstance(value, Tensor):
                    layer = next(layer for layer, number in LAYERS.items() if number == place)
                    return f"no {name} ({layer}); {_ADVICE}"
                if tuple(value.shape) != shape:
                    return f"{name} is {tuple(value.shape)}, not {shape}; {_ADVICE}"
                if not value.is_floating_point():
                    return f"{name} is {str(value.dtype).removeprefix('torch.')}, not float; {_ADVICE}"
            if place + 2 > deepest:
                return None
            channels, place = width, place + 2
        place += 1
    return None


def find_vgg19_weights() -> Path | None:
    """Return the file of VGG19 weights on this machine, or None; nothing is fetched.

    The order is that of `load_vgg19`: BasicSR's folder under the working directory, torch.hub's cache, ours.
    """
    places = (UPSTREAM_WEIGHTS, *(folder / WEIGHTS_NAME for folder in (hub_folder(), cache_folder())))
    return next((path for path in places if path.is_file()), None)


def default_weights() -> Path:
    """Return the file of `find_vgg19_weights`; in our cache it is checked, and downloaded if it is missing."""
    found = find_vgg19_weights()
    if found is not None and found.parent != cache_folder():
        return found
    try:
        return ensure(WEIGHTS["vgg19"])
    except UserError as error:
        raise UserError(
            f"{error}; `basicsr weights fetch vgg19` fetches it, {UPSTREAM_WEIGHTS} is another place for it, or set "
            "vgg_weights to a file"
        ) from error
