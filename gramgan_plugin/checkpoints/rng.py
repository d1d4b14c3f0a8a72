"""Save and restore the states of the random generators that a model may draw from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from gramgan_plugin.utils.devices import DEVICES, random_module

# Words in the state of numpy's Mersenne twister.
WORDS = 624


@contextmanager
def preserve_rng(device: torch.device | None = None) -> Iterator[None]:
    """Restore the generators of Python, numpy and torch when a block ends.

    Args:
        device: an accelerator whose own generator is restored as well; None, or the CPU, for none.
    """
    states = _get(device)
    try:
        yield
    finally:
        _set(states, device)


def get_rng_states(device: torch.device) -> list[dict[str, Tensor]]:
    """Return the states of each process's generators as tensors, by rank. Every process must call this.

    Args:
        device: the model's; a GPU's own generator is included.

    Raises:
        ValueError: if ``numpy.random`` does not draw from numpy's default generator.
    """
    own = _to_tensors(_get(device))
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    if world == 1:
        return [own]
    everyone: list[dict[str, Tensor]] = [{} for _ in range(world)]
    for name, value in own.items():
        gathered = [torch.empty_like(value, device=device) for _ in range(world)]
        distributed.all_gather(gathered, value.to(device))
        for states, one in zip(everyone, gathered, strict=True):
            states[name] = one.cpu()
    return everyone


def set_rng_states(states: list[dict[str, Tensor]], device: torch.device) -> None:
    """Restore this process's generators; a process that the saved run did not have keeps its own states.

    Raises:
        ValueError: if ``states`` does not describe the generators.
    """
    rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
    if rank >= len(states):
        return
    try:
        _set(_from_tensors(states[rank]), device)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"'random' does not hold states of the random generators ({error})") from error


def _get(device: torch.device | None) -> dict[str, Any]:
    states = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": torch.get_rng_state()}
    if (generator := random_module(device)) is not None and device is not None:
        states[device.type] = generator.get_rng_state(device)
    return states


def _set(states: dict[str, Any], device: torch.device | None) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    generator = random_module(device)
    if generator is not None and device is not None and device.type in states:
        generator.set_rng_state(states[device.type], device)


def _to_tensors(states: dict[str, Any]) -> dict[str, Tensor]:
    # Python and numpy both keep the second normal number of each pair that they draw.
    (_, words, normal), numpy = states["python"], states["numpy"]
    if numpy["bit_generator"] != "MT19937":
        raise ValueError(f"numpy.random draws from {numpy['bit_generator']}; only its own MT19937 can be saved")
    words_of_numpy = [*numpy["state"]["key"].tolist(), numpy["state"]["pos"], numpy["has_gauss"]]
    return {
        "python": torch.tensor([*words, int(normal is not None)], dtype=torch.int64),
        "numpy": torch.tensor(words_of_numpy, dtype=torch.int64),
        "normals": torch.tensor([normal or 0.0, numpy["gauss"]], dtype=torch.float64),
    } | {name: states[name] for name in ("torch", *DEVICES) if name in states}


def _from_tensors(states: dict[str, Tensor]) -> dict[str, Any]:
    *words, has_normal = states["python"].tolist()
    *words_of_numpy, position, has_gauss = states["numpy"].tolist()
    normal, gauss = states["normals"][0].item(), states["normals"][1].item()
    if not 0 <= position <= WORDS:  # numpy does not check it
        raise ValueError(f"position {position}")
    return states | {
        "python": (3, tuple(words), normal if has_normal else None),
        "numpy": ("MT19937", np.array(words_of_numpy, np.uint32), position, has_gauss, gauss),
    }
