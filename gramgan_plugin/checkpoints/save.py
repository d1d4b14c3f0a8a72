"""Write the checkpoint of an iteration: the networks, the training state, and ``N.json``, which completes it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from gramgan_plugin.checkpoints.finite import refuse_non_finite
from gramgan_plugin.checkpoints.rng import get_rng_states
from gramgan_plugin.checkpoints.safetensors_files import save_safetensors
from gramgan_plugin.checkpoints.tensor_files import save_tensors
from gramgan_plugin.utils.io import describe_file, save_json

CHECKPOINT_FORMAT = 1


def save_networks(nets: Mapping[str, nn.Module], path: Path) -> None:
    """Write the weights of networks to one file in BasicSR's format, completely or not at all. Rank 0 writes.

    Args:
        nets: key in the file (``params``, ``params_ema``) -> network, without a wrapper.
        path: the file.

    Raises:
        TrainingStopped: on every process, if a weight is not finite; nothing is written then.
        UserError: if it cannot be written; an older file of that name stays.
    """
    weights = {key: net.state_dict() for key, net in nets.items()}
    refuse_non_finite(weights, path)
    if _is_first():
        save_tensors(
            {key: {name: w.cpu().contiguous() for name, w in one.items()} for key, one in weights.items()}, path
        )


def save_for_others(nets: Mapping[str, nn.Module], path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the averaged weights of a generator, or its weights without averaging, as safetensors.

    Rank 0 writes. ``save_networks`` has checked that they are finite.

    Args:
        nets: key (``params``, ``params_ema``) -> network.
        path: the file.
        metadata: plain values.

    Raises:
        UserError: if it cannot be written.
    """
    if _is_first():
        key = "params_ema" if "params_ema" in nets else next(iter(nets))
        facts = {name: value for name, value in metadata.items() if value is not None}
        save_safetensors(nets[key].state_dict(), path, {"key": key, **facts})


def save_training_state(model: Any, state: Path, epoch: int, iteration: int, networks: Iterable[Path]) -> None:
    """Write ``N.state``, then ``N.json`` beside it, without which the checkpoint does not count.

    The state has the optimizers, the schedules, the gradient scaler, the random states of all processes and
    ``run_facts``. ``N.json`` has each file's size and SHA-256, which detects corruption, not tampering. Every process
    must call this; rank 0 writes.

    Args:
        model: of any class with ``HostFixes``.
        state: ``N.state``.
        epoch: of the iteration.
        iteration: N.
        networks: the files of networks that belong to this checkpoint.

    Raises:
        TrainingStopped: if a moment of an optimizer is not finite; nothing is written then.
        UserError: if it cannot be written.
    """
    optimizers = [optimizer.state_dict() for optimizer in model.optimizers]
    refuse_non_finite({"optimizers": optimizers}, state)
    rng_states, own = get_rng_states(model.device), model.own_state()
    if not _is_first():
        return
    content = {
        "epoch": epoch,
        "iter": iteration,
        "optimizers": optimizers,
        "schedulers": [scheduler.state_dict() for scheduler in model.schedulers],
        "classes": {
            "optimizers": [type(optimizer).__name__ for optimizer in model.optimizers],
            "schedulers": [type(scheduler).__name__ for scheduler in model.schedulers],
        },
        "scaler": model.scaler.state_dict() if model.scaler is not None else None,
        "own": own,
        "random": rng_states,
        "run": model.run_facts,
    }
    save_tensors(plain(content), state)
    manifest = {
        "format": CHECKPOINT_FORMAT,
        "iter": iteration,
        "run": plain(model.run_facts),
        "files": {f"{path.parent.name}/{path.name}": describe_file(path) for path in (state, *networks)},
    }
    save_json(manifest, state.with_suffix(".json"))


def plain(value: Any) -> Any:
    """Return ``value`` in the types that a weights-only load reads: tensors, numbers, strings, lists and dicts.

    Raises:
        TypeError: if it holds anything else.
    """
    if isinstance(value, Mapping):  # a Counter, too
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot stand in a training state")


def _is_first() -> bool:
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
