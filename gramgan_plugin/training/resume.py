"""Finding the checkpoint to go on from, and putting a model back to where it was."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.files import describe_file, load_tensors
from gramgan_plugin.errors import UserError
from gramgan_plugin.json_lines import read_lines
from gramgan_plugin.json_record import MOST_BYTES, is_count, parse_json
from gramgan_plugin.models.state_form import check_form
from gramgan_plugin.sections import section
from gramgan_plugin.text import printable, shortened

logger = logging.getLogger("basicsr")


Report = Callable[[int, str], object]  # as logging.Logger.log


def find_resume_state(opt: dict[str, Any], report: Report = logger.log) -> Path | None:
    """The training state to resume from, or None for a fresh start.

    ``--auto_resume`` takes the newest whole checkpoint of the run, passing over damaged ones with a warning; where
    the run has none, or without ``--auto_resume``, ``path.resume_state`` may name one.

    Args:
        opt: resolved options.
        report: takes a level of ``logging`` and a line.

    Raises:
        UserError: if the one named is missing or damaged, or the run would overwrite newer checkpoints than it.
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
    """The newest ``N.state`` in ``folder`` whose files are all there and, as far as can be seen, as they were written.

    Upstream's checkpoints have no ``N.json`` to compare them with, nor have those that lost it in copying: they are
    taken unverified if they can be read.

    Args:
        folder: the run's ``training_states``.
        report: takes a level of ``logging`` and a line.
        networks: those that a checkpoint without ``N.json`` needs, such as ``net_g``.

    Raises:
        UserError: if a training state that can be read lacks a network: an older one is not resumed from, since the
            run would overwrite it.
    """
    for state in _states(folder):
        problem = _problem(state, networks)
        if problem is None:
            if not state.with_suffix(".json").exists():
                report(logging.WARNING, _unverified(state))
            return state
        report(logging.WARNING, f"{state} is passed over: {problem}")
    return None


def is_of_run(state: Path | None, opt: dict[str, Any]) -> bool:
    """Whether a state lies in the run's own folder, so that the run goes on; from any other a new run starts."""
    return state is not None and state.parent.resolve() == Path(opt["path"]["training_states"]).resolve()


def _networks(opt: dict[str, Any]) -> list[str]:
    """The networks that come from a checkpoint, by the beginning of their files' names."""
    kept = opt["path"].get("ignore_resume_networks") or []
    names = [key for key in opt if key.startswith("network_") and opt[key] and key not in kept]
    return [f"net_{name.removeprefix('network_')}" for name in names]


def _states(folder: Path) -> list[Path]:
    """The training states in a folder, the newest first; not those that are being removed."""
    states = [path for path in folder.glob("*.state") if path.stem.isdecimal() and len(path.stem) < 20]
    states = [path for path in states if not (folder / f".{path.stem}.json.removing").exists()]
    return sorted(states, key=lambda path: int(path.stem), reverse=True)


def _problem(state: Path, networks: Iterable[str]) -> str | None:
    """What keeps a checkpoint from being resumed from, or None."""
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
    """What is wrong with the checkpoint of ``state``, or None if its files match their recorded size and SHA-256.

    Args:
        state: ``N.state``; ``N.json`` beside it has the list.
        contents: read the files; otherwise their sizes are all that is compared.
    """
    manifest = state.with_suffix(".json")
    try:
        with manifest.open("rb") as file:
            files = parse_json(file.read(MOST_BYTES))["files"]
        expected = {str(name): dict(entry) for name, entry in files.items()}
    except FileNotFoundError:
        return f"{manifest.name} is missing, so it was not written to the end"
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


def recorded_results(run: Path, iteration: int, datasets: Iterable[str]) -> dict[str, dict[str, float]] | None:
    """The validation results of an iteration in a run's ``metrics.jsonl``, or None unless all these sets have some.

    A checkpoint is written before the validation of its iteration, and a kill may have come between the two. Results
    from before the last start at an earlier iteration are of weights that the run has left behind.

    Returns:
        set -> metric -> mean.
    """
    results: dict[str, dict[str, float]] = {}
    try:
        starts = [record for _, record in read_lines(run / "starts.jsonl")] if (run / "starts.jsonl").is_file() else []
        before = [start for start in starts if is_count(start.get("iteration")) and start["iteration"] < iteration]
        first = before[-1].get("metrics_lines", 0) if before else 0
        for number, record in read_lines(run / "metrics.jsonl") if (run / "metrics.jsonl").is_file() else ():
            values = section(record, "metrics")
            if record.get("iter") == iteration and "dataset" in record and number > first:
                numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
                results[str(record["dataset"])] = numbers
    except (UserError, TypeError, OverflowError):
        return None
    return results if {*datasets} <= results.keys() else None


def load_resume_state(state: Path, opt: dict[str, Any]) -> dict[str, Any]:
    """Read a training state and point ``opt["path"]`` at the networks saved with it.

    Networks named in ``path.ignore_resume_networks`` keep their own ``pretrain_network_*``.

    Raises:
        UserError: if the file is no training state or a network's file is missing.
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
    """Put optimizers and schedules back, and return the iteration reached.

    Raises:
        UserError: if the state is of a run with other networks or optimizers, or damaged.
    """
    try:
        model.resume_training(content)
    except (AssertionError, ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{state}: does not fit these options' optimizers or schedule, or is damaged: {error}"
        ) from error
    return int(content["iter"])
