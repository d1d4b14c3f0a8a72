"""Compute the Gram vectors of patches, from their pixels or from a VGG19 layer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gramgan_plugin.archs.vgg19_arch import LAYERS, VGG19Layer
from gramgan_plugin.checkpoints.vgg19 import load_vgg19
from gramgan_plugin.errors import UserError
from gramgan_plugin.functional.gram import gram_vectors
from gramgan_plugin.patchdb.database_manifest import Definition, Features
from gramgan_plugin.patchdb.making.reservoir import ROWS_AT_ONCE
from gramgan_plugin.patchdb.moments import LEVELS, gram_rows, moments

MOST_NUMBERS = 2**22  # features or Gram vector elements computed at a time


class GramDescription:
    """Computes the Gram vectors of a database's definition.

    Attributes:
        at_once: maximum number of patches for one call.

    Args:
        definition: what a patch is.
        layer: the layer of its features; None for pixels.
    """

    def __init__(self, definition: Definition, layer: VGG19Layer | None = None) -> None:
        self.definition = definition
        self.layer = layer
        self.at_once = ROWS_AT_ONCE
        if layer is not None:
            # The first maps have the size of the patches and 64 channels.
            self.at_once = max(1, MOST_NUMBERS // max(64 * definition.kept_side**2, definition.dimensions))

    def of_patches(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the Gram vectors (n, D) of (n, s, s, C) patches with margins; n is at most ``at_once``."""
        if self.layer is None:
            return gram_rows(moments(patches), self.definition)
        # Always the same number at a time, since rounding in convolutions may depend on it.
        windows = np.zeros((self.at_once, *patches.shape[1:]), np.uint8)
        windows[: len(patches)] = patches
        return self._of_windows(windows)[: len(patches)]

    def of_image(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the Gram vectors (P, D) of an image's features, (H, W, 3), in patches without overlap."""
        assert self.layer is not None
        with torch.inference_mode():
            return self._vectors(self.layer(_as_images(rgb[None])))

    def _of_windows(self, windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert self.layer is not None
        begin, size = self.definition.margin // self.layer.reduction, self.definition.patch_size
        with torch.inference_mode():
            maps = self.layer(_as_images(windows))[..., begin : begin + size, begin : begin + size]
            # One image, a row of patches.
            return self._vectors(maps.permute(1, 2, 0, 3).flatten(2)[None])

    def _vectors(self, maps: torch.Tensor) -> NDArray[np.float32]:
        """Return the Gram vectors of the patches of a map: (1, C, H, W) -> (P, D)."""
        definition = self.definition
        found = gram_vectors(maps, definition.patch_size, definition.normalize, definition.center)
        vectors: NDArray[np.float32] = found[0].numpy()
        return vectors


def description_of_features(definition: Definition, layer: str, vgg_weights: str | None) -> GramDescription:
    """Return the description for a VGG19 layer; its definition is the given one with these features.

    Args:
        definition: a definition for pixels.
        layer: ``conv1_2``, ``relu1_2``, ...
        vgg_weights: a file, or None for the loss's default.

    Raises:
        UserError: for an unknown layer, or if the weights are not available.
    """
    if layer not in LAYERS:
        raise UserError(f"--features {layer}: VGG19 has no such layer; its layers are {', '.join(LAYERS)}")
    network = VGG19Layer(layer, load_vgg19(vgg_weights, [layer]))
    margin = -(-network.margin // network.reduction) * network.reduction
    features = Features(layer, network.weights_sha256(), network.channels, network.reduction, margin)
    return GramDescription(replace(definition, features=features), network)


def description_of(definition: Definition, vgg_weights: str | None, path: Path) -> GramDescription:
    """Return the description for an existing database.

    Args:
        definition: the database's definition.
        vgg_weights: see `description_of_features`; ignored for Gram matrices of pixels.
        path: the database, for messages.

    Raises:
        UserError: if the weights are not available, or are not those that the database was built with.
    """
    if definition.features is None:
        return GramDescription(definition)
    description = description_of_features(definition, definition.features.layer, vgg_weights)
    if description.definition != definition:
        raise UserError(
            f"{path}: was built with other VGG19 weights than {vgg_weights or 'those found here'}; "
            "name its own with --vgg-weights"
        )
    return description


def _as_images(rgb: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float() / LEVELS
