"""Find the checkpoint to resume from, read it, and restore a model from it."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.restore_optimizers import restore_optimizers
from gramgan_plugin.checkpoints.rng import set_rng_states
from gramgan_plugin.checkpoints.state_form import check_form
from gramgan_plugin.checkpoints.tensor_files import load_tensors
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import MOST_BYTES, describe_file, parse_json
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import printable, shortened

logger = logging.getLogger("basicsr")

Report = Callable[[int, str], object]  # as logging.Logger.log


def find_resume_state(opt: dict[str, Any], report: Report = logger.log) -> Path | None:
    """Return the training state to resume from, or None for a fresh start.

    ``--auto_resume`` takes the newest whole checkpoint of the run and skips damaged ones with a warning; where the
    run has none, or without ``--auto_resume``, ``path.resume_state`` may name one.

    Args:
        opt: resolved options.
        report: takes a level of ``logging`` and a line.

    Raises:
        UserError: if the named one is missing or damaged, or the run would overwrite newer checkpoints.
    """
    own = Path(opt["path"]["training_states"])
    if opt["auto_resume"]:
        newest = newest_checkpoint(own, report, _networks(opt))
        if newest is not None:
            return newest
    named = opt["path"].get("resume_state")
    if not named:
        if opt["auto_resume"]:
            report(logging.INFO, f"--auto_resume: {own} has no checkpoint to resume from; training starts anew")
        return None
    state = Path(named)
    if not state.is_file():
        raise UserError(f"path.resume_state: {state}: no such file")
    problem = damage(state)
    if problem and state.with_suffix(".json").exists():
        raise UserError(f"path.resume_state: {state}: {problem}")
    if problem:
        report(logging.WARNING, _unverified(state))
    for newer in _states(own) if is_of_run(state, opt) and state.stem.isdecimal() else ():
        if int(newer.stem) > int(state.stem) and _problem(newer, _networks(opt)) is None:
            raise UserError(
                f"path.resume_state: {state}: {newer} is newer, and this run would overwrite it; resume from that with "
                f"--auto_resume, give this run another `name`, or move the later ones (training_states/N.*, "
                "models/net_*_N.pth) away"
            )
    return state


def newest_checkpoint(folder: Path, report: Report = logger.log, networks: Iterable[str] = ()) -> Path | None:
    """Return the newest ``N.state`` in ``folder`` whose files match their ``N.json``, or None.

    Checkpoints without ``N.json`` (upstream's, or copies without it) are used unverified if they can be read.

    Args:
        folder: the run's ``training_states``.
        report: takes a level of ``logging`` and a line.
        networks: those that a checkpoint without ``N.json`` must have, such as ``net_g``.

    Raises:
        UserError: if a training state that can be read lacks a network. An older one is not used instead, since the
            run would overwrite the newer one.
    """
    for state in _states(folder):
        problem = _problem(state, networks)
        if problem is None:
            if not state.with_suffix(".json").exists():
                report(logging.WARNING, _unverified(state))
            return state
        report(logging.WARNING, f"{state} is skipped: {problem}")
    return None


def is_of_run(state: Path | None, opt: dict[str, Any]) -> bool:
    """Return whether a state is in the run's own folder, so that the run is resumed; another state starts a new run."""
    return state is not None and state.parent.resolve() == Path(opt["path"]["training_states"]).resolve()


def _networks(opt: dict[str, Any]) -> list[str]:
    """Return the networks to load from a checkpoint, as their files' names begin: ``net_g``."""
    kept = opt["path"].get("ignore_resume_networks") or []
    names = [key for key in opt if key.startswith("network_") and opt[key] and key not in kept]
    return [f"net_{name.removeprefix('network_')}" for name in names]


def _states(folder: Path) -> list[Path]:
    """Return the training states in a folder, newest first, without those being removed."""
    states = [path for path in folder.glob("*.state") if path.stem.isdecimal() and len(path.stem) < 20]
    states = [path for path in states if not (folder / f".{path.stem}.json.removing").exists()]
    return sorted(states, key=lambda path: int(path.stem), reverse=True)


def _problem(state: Path, networks: Iterable[str]) -> str | None:
    """Return why a checkpoint cannot be resumed from, or None if it can."""
    if state.with_suffix(".json").exists():
        return damage(state)
    try:
        content = load_tensors(state)
        iteration = content.get("iter") if isinstance(content, dict) else None
        if type(iteration) is not int or iteration != int(state.stem):
            return "it is not the training state of that iteration"
        paths = [state.parent.parent / "models" / f"{network}_{iteration}.pth" for network in networks]
        for path in paths:
            if path.is_file():
                load_tensors(path)
    except UserError as error:
        return str(error)
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise UserError(
            f"{state}: its network {missing} is missing; put it back, or move {state.name} away to resume from an "
            "older checkpoint"
        )
    return None


def _unverified(state: Path) -> str:
    return f"{state} has no {state.stem}.json with its files' hashes; it is resumed from unverified"


def damage(state: Path, *, contents: bool = True) -> str | None:
    """Return what is wrong with a checkpoint, or None if its files match the sizes and SHA-256 in its ``N.json``.

    Args:
        state: ``N.state``; ``N.json`` is beside it.
        contents: read the files; otherwise compare only their sizes.
    """
    manifest = state.with_suffix(".json")
    try:
        with manifest.open("rb") as file:
            files = parse_json(file.read(MOST_BYTES))["files"]
        expected = {str(name): dict(entry) for name, entry in files.items()}
    except FileNotFoundError:
        return f"{manifest.name} is missing, so it was not written completely"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{manifest.name} is not readable"
    run = state.parent.parent
    for name, entry in expected.items():
        path, shown = run / name, shortened(printable(name), 100)
        try:
            if not path.is_file():
                return f"{shown} is missing"
            if (describe_file(path) if contents else {**entry, "size": path.stat().st_size}) != entry:
                return f"{shown} is not as it was written"
        except OSError as error:
            return f"{shown} cannot be read: {error.strerror}"
    return None


def load_resume_state(state: Path, opt: dict[str, Any]) -> dict[str, Any]:
    """Read a training state and point ``opt["path"]`` at the networks saved with it.

    Networks named in ``path.ignore_resume_networks`` keep their own ``pretrain_network_*``.

    Raises:
        UserError: if the file is not a training state, or a network's file is missing.
    """
    content = load_tensors(state)
    if not isinstance(content, dict) or not {"iter", "optimizers", "schedulers"} <= content.keys():
        raise UserError(f"{state}: not a training state")
    try:
        check_form(content)
    except ValueError as error:
        raise UserError(f"{state}: a damaged training state: {error}") from error
    path = opt["path"]
    models = state.parent.parent / "models"
    for network in _networks(opt):
        weights = models / f"{network}_{content['iter']}.pth"
        if not weights.is_file():
            raise UserError(f"{state}: its network {weights} is missing")
        letter = network.removeprefix("net_")
        path[f"pretrain_network_{letter}"] = str(weights)
        path[f"param_key_{letter}"] = "params"
    return content


def restore(model: Any, content: dict[str, Any], state: Path) -> int:
    """Restore a model by its ``resume_training`` from the content of a training state; return its iteration.

    Raises:
        UserError: if the state is damaged, or of a run with other networks or optimizers.
    """
    try:
        model.resume_training(content)
    except (AssertionError, ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{state}: does not fit these options' optimizers or schedule, or is damaged: {error}"
        ) from error
    return int(content["iter"])


def restore_training_state(model: Any, content: Mapping[str, Any]) -> None:
    """Restore what ``save_training_state`` wrote, with the options that the model was built with.

    Settings of optimizers and schedules come from the options; differences from the state are logged, see
    ``restore_optimizers``. Optimizers keep their implementation (fused, foreach). Upstream's states, which hold less,
    are accepted as well.

    Args:
        model: of any class with ``HostFixes``.
        content: of the training state.

    Raises:
        ValueError: if the state is of other networks, or damaged.
        OptionError: if a schedule has ended before the iteration of the state.
    """
    check_form(content)
    blocks = {id(value): key.removeprefix("optimizer_") for key, value in vars(model).items() if "optimizer_" in key}
    letters = [blocks.get(id(optimizer), str(number)) for number, optimizer in enumerate(model.optimizers)]
    kept = model.opt["path"].get("ignore_resume_networks") or []
    for line in restore_optimizers(
        {f"train.optim_{letter}": optimizer for letter, optimizer in zip(letters, model.optimizers, strict=True)},
        model.schedulers,
        content,
        replaced=[f"train.optim_{letter}" for letter in letters if f"network_{letter}" in kept],
    ):
        logger.warning(line)
    if model.scaler is not None and content.get("scaler"):
        model.scaler.load_state_dict(content["scaler"])
    model.load_own_state(section(content, "own"))
    if content.get("random"):
        set_rng_states(content["random"], model.device)
