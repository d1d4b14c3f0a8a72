"""Networks of other architectures, recognised and built by spandrel from tensors that were read safely."""

import importlib
import logging
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


def _plausible(state: Mapping[str, Tensor]) -> bool:
    """Return whether no shape or number in a name lets spandrel build far more than the tensors that there are."""
    numbers = [number for name in state for number in re.findall(r"\d+", name)]
    most = max(64, len(state))
    return all(tensor.numel() for tensor in state.values()) and all(
        len(number) < 9 and int(number) <= most for number in numbers
    )


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
