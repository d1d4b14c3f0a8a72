"""Check that the weight files in the options exist, have the expected content and fit; no weights are loaded."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gramgan_plugin.archs.vgg19_arch import LAYERS
from gramgan_plugin.checkpoints.headers import read_headers
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.safetensors_files import saved_key
from gramgan_plugin.checkpoints.state_dicts import find_state_dict, match_weights
from gramgan_plugin.checkpoints.vgg19 import UPSTREAM_WEIGHTS, find_vgg19_weights, vgg19_misfit
from gramgan_plugin.checkpoints.weights_cache import find
from gramgan_plugin.config.findings import Findings
from gramgan_plugin.errors import UserError
from gramgan_plugin.losses.vgg_perceptual_loss import LAYER_WEIGHTS
from gramgan_plugin.models.components import Component
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.sections import section


def check_weights(opt: Mapping[str, Any], resumed: bool, found: Findings) -> None:
    """Add an error for weights and training states that are missing, unreadable or of another network.

    Args:
        opt: options whose values are correct, with current names.
        resumed: whether the run is resumed from a checkpoint, whose networks replace ``pretrain_network_*``.
        found: gets the errors and warnings.
    """
    paths = section(opt, "path")
    state = paths.get("resume_state")
    if state:
        _check_state(expanded(state), found)
    keep = paths.get("ignore_resume_networks") or []
    for network in keep:
        if not network.startswith("network_"):
            found.error("path.ignore_resume_networks", f"{network!r} is not a network; write network_g or network_d")
    for key, path in paths.items():
        network = key.removeprefix("pretrain_")
        unread = (resumed or state) and network not in keep
        if network != key and path and opt.get(network) and not unread:
            _check_network(network, expanded(path), opt, found)
    for where, block in _vgg_blocks(section(opt, "train")):
        if block.get("type") == "PerceptualLoss":
            _check_upstreams_vgg(where, str(block.get("vgg_type", "vgg19")), found)
        else:
            _check_vgg(where, block, found)


def _check_state(file: Path, found: Findings) -> None:
    if not file.is_file():
        found.error("path.resume_state", f"{file}: no such file")
        return
    try:
        content = read_headers(file)
    except UserError as error:
        found.error("path.resume_state", str(error))
        return
    if not isinstance(content, dict) or not {"iter", "optimizers", "schedulers"} <= content.keys():
        found.error("path.resume_state", f"{file}: not a training state; give training_states/N.state")


def _check_network(network: str, file: Path, opt: Mapping[str, Any], found: Findings) -> None:
    if str(file) in WEIGHTS and not file.is_file():
        cached = find(WEIGHTS[str(file)])
        if cached is None:
            how = f"it is downloaded when the run begins, or by `basicsr weights fetch {file}`"
            found.warn(f"path.pretrain_{network}", f"{file} is not on this machine yet; {how}")
            return
        file = cached
    paths, letter = section(opt, "path"), network.removeprefix("network_")
    key = paths.get(f"param_key_{letter}")
    required = f"path.param_key_{letter}" if key is not None else None
    try:
        weights, key = find_state_dict(
            read_headers(file), str(file), key or "params", required=required, bare=saved_key(file)
        )
    except UserError as error:
        if required is not None and str(error).startswith(required):
            found.catch(error)
        else:
            found.error(f"path.pretrain_{network}", str(error))
        return
    net = _without_values(Component((network,), "arch", opt[network]))
    if net is None:
        found.warn(f"path.pretrain_{network}", f"{file}: not compared with the network, which cannot be built here")
        return
    fit = match_weights(net, weights, str(file), key, section(opt, "train").get("adapt_channels", False))
    refusal = fit.refusal(paths.get(f"strict_load_{letter}", True), f"strict_load_{letter}")
    if refusal is not None:
        found.error(f"path.pretrain_{network}", refusal)


def _without_values(component: Component) -> nn.Module | None:
    """Build the network on the meta device, without values, or on the CPU if its constructor needs values.

    None if it cannot be built; the reason is reported elsewhere, or when the run builds it.
    """
    options = {key: value for key, value in component.options.items() if key != "type"}
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the run shows them
                net: nn.Module = component.constructor()(**options)
                return net
        except Exception:  # a refused option, or an operation that needs values
            continue
    return None


def _vgg_blocks(train: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path of each block that needs VGG's features, and the block with ``layer_weights``."""
    blocks = {f"train.{key}": section(train, key) for key in train if key.endswith("_opt")}
    terms = section(train, "extra_terms")
    blocks |= {f"train.extra_terms.{key}": section(terms, key) for key in terms}
    for where, block in blocks.items():
        if block.get("type") in ("VGGPerceptualLoss", "PerceptualLoss"):
            yield where, block
        elif block.get("type") == "GramPatchLoss" and section(block, "features"):
            yield f"{where}.features", {**block["features"], "layer_weights": [block["features"].get("layer")]}
        elif block.get("vgg_weights"):  # of an unknown class
            yield where, {**block, "layer_weights": None}


def _check_vgg(where: str, block: Mapping[str, Any], found: Findings) -> None:
    named = block.get("vgg_weights")
    file = Path(named) if named else find_vgg19_weights()
    key = f"{where}.vgg_weights"
    if file is None:
        how = "it is downloaded when the run begins, or by `basicsr weights fetch vgg19`"
        found.warn(key, f"VGG19 is not on this machine yet; {how}")
        return
    if not file.is_file():
        found.error(key, f"{file}: no such file")
        return
    weights = block.get("layer_weights", "gramgan")
    if weights is None:
        return
    layers = LAYER_WEIGHTS.get(weights, {}) if isinstance(weights, str) else weights
    removed = [layer for layer, weight in layers.items() if weight is None] if isinstance(layers, dict) else []
    known = [layer for layer in layers if layer in LAYERS and layer not in removed]
    try:
        problem = vgg19_misfit(read_headers(file), known or ["conv1_1"])
    except UserError as error:
        found.error(key, str(error))
        return
    if problem is not None:
        found.error(key, f"{file}: {problem}")


def _check_upstreams_vgg(where: str, kind: str, found: Findings) -> None:
    """Check the file from which BasicSR's PerceptualLoss loads any VGG network, as a whole."""
    from torchvision import models

    if not hasattr(models, kind):
        return
    if not UPSTREAM_WEIGHTS.is_file():
        if kind == "vgg19" and find_vgg19_weights() is None:
            found.warn(where, "VGG19 is not on this machine yet; it is downloaded when the run begins")
        return
    try:
        weights, key = find_state_dict(read_headers(UPSTREAM_WEIGHTS), str(UPSTREAM_WEIGHTS), None)
    except UserError as error:
        found.error(where, str(error))
        return
    with torch.device("meta"):
        fit = match_weights(getattr(models, kind)(weights=None), weights, str(UPSTREAM_WEIGHTS), key)
    if key is not None or not fit.complete:
        advice = f"BasicSR's PerceptualLoss reads {kind} from there: put torchvision's file in its place, or remove it"
        found.error(where, f"{fit.summary()}; {advice}")
