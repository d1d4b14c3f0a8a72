"""The states of the random generators that a model may draw from, as tensors."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

States = dict[str, Tensor]
# Of the Mersenne twister's state.
WORDS = 624


def get_random_states(device: torch.device) -> list[States]:
    """The states of each process's generators, by rank; every process has to call this.

    Args:
        device: the model's; a GPU's own generator is among those kept.
    """
    own = _get(device)
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    if world == 1:
        return [own]
    everyone: list[States] = [{} for _ in range(world)]
    for name, value in own.items():
        gathered = [torch.empty_like(value, device=device) for _ in range(world)]
        distributed.all_gather(gathered, value.to(device))
        for states, one in zip(everyone, gathered, strict=True):
            states[name] = one.cpu()
    return everyone


def set_random_states(states: list[States], device: torch.device) -> None:
    """Put this process's generators back; a process that the run did not have before keeps its own.

    Raises:
        ValueError: if these do not describe the generators.
    """
    rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
    if rank >= len(states):
        return
    try:
        _set(states[rank], device)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"'random' does not hold states of the random generators ({error})") from error


def _set(own: States, device: torch.device) -> None:
    *words, has_normal = own["python"].tolist()
    random.setstate((3, tuple(words), own["normals"][0].item() if has_normal else None))
    *words, position, has_normal = own["numpy"].tolist()
    if not 0 <= position <= WORDS:  # numpy reads there unchecked
        raise ValueError(f"position {position}")
    np.random.set_state(("MT19937", np.array(words, np.uint32), position, has_normal, own["normals"][1].item()))
    torch.set_rng_state(own["torch"])
    if device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], device)


def _get(device: torch.device) -> States:
    # Both keep a second normal number from each pair that they draw.
    _, words, normal = random.getstate()
    state: dict[str, Any] = np.random.get_state(legacy=False)
    name = state["bit_generator"]
    if name != "MT19937":
        raise ValueError(f"numpy.random draws from {name}; only its own MT19937 can be saved")
    words_of_numpy, position = state["state"]["key"].tolist(), state["state"]["pos"]
    states = {
        "python": torch.tensor([*words, int(normal is not None)], dtype=torch.int64),
        "numpy": torch.tensor([*words_of_numpy, position, state["has_gauss"]], dtype=torch.int64),
        "normals": torch.tensor([normal or 0.0, state["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states
