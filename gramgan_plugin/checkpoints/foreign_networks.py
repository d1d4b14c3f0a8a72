"""Networks of other architectures, recognised and built by spandrel from tensors that were read safely."""

import importlib
import json
import logging
import math
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn


class ForeignNetwork(nn.Module):
    """A network of spandrel's behind the plain call of ours: (N, C, H, W) in [0, 1] -> (N, C, s H, s W) in [0, 1].

    Args:
        descriptor: spandrel's ``ImageModelDescriptor``.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.model: nn.Module = descriptor.model
        self.side_multiple = int(descriptor.size_requirements.multiple_of)

    def forward(self, x: Tensor) -> Tensor:
        """Return SR of LQ; images of a batch are computed one by one, as spandrel's models expect them."""
        if len(x) == 1:  # an exporter would write the loop for this one image
            result: Tensor = self.descriptor(x)
            return result.clone()  # what is made in inference mode cannot be changed
        return torch.cat([self.descriptor(image[None]) for image in x])


def load_foreign(state: Mapping[str, Tensor]) -> Any:
    """Return spandrel's descriptor of a state dict (with architecture, scale, channels, model), on the CPU.

    Args:
        state: with data.

    Raises:
        ValueError: if spandrel knows no such network, the tensors do not fit it, or it makes no image of an image.
    """
    if not _plausible(state):
        raise ValueError("its tensors are those of no known architecture")
    spandrel = _spandrel()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise ValueError("its tensors are those of no known architecture") from error
    except Exception as error:  # whatever its detection raises for tensors of other shapes
        raise ValueError("its tensors do not fit the architecture that their names are of") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ValueError(f"{descriptor.architecture.name} needs a mask beside the image; that is not supported here")
    descriptor.model.eval().requires_grad_(False)
    return descriptor


def options_of(model: nn.Module) -> dict[str, Any] | None:
    """Return the options with which spandrel built a network, as an option file has them; None if it does not say."""
    options = getattr(model, "hyperparameters", None)
    try:
        return None if options is None else dict(json.loads(json.dumps(options, allow_nan=False)))
    except (TypeError, ValueError):
        return None


def _plausible(state: Mapping[str, Tensor]) -> bool:
    """Return whether no shape or number in a name lets spandrel build far more than the tensors that there are."""
    numbers = [number for name in state for number in re.findall(r"\d+", name)]
    most = max(64, len(state))
    there = max(64, sum(tensor.numel() for tensor in state.values()))
    sizes = (math.prod(max(1, side) for side in tensor.shape) for tensor in state.values())  # also of empty tensors
    return max(sizes, default=0) <= there and all(len(number) < 9 and int(number) <= most for number in numbers)


@lru_cache(maxsize=1)
def foreign_architectures() -> dict[str, type[nn.Module]]:
    """Return the network classes of spandrel's architectures, all permissively licensed, by class name."""
    spandrel = _spandrel()
    found: dict[str, type[nn.Module]] = {}
    for support in spandrel.MAIN_REGISTRY.architectures():
        module = importlib.import_module(type(support.architecture).__module__)
        for name in module.__all__:
            member = getattr(module, name)
            if isinstance(member, type) and issubclass(member, nn.Module):
                found[name] = member
    return found


def _spandrel() -> Any:
    """Import spandrel; it takes seconds, and logs."""
    logging.getLogger("spandrel").setLevel(logging.ERROR)
    return importlib.import_module("spandrel")
