"""Finding the checkpoint to go on from, and putting a model back to where it was."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.files import describe_file, load_tensors
from gramgan_plugin.data.progress import printable
from gramgan_plugin.errors import UserError, shortened
from gramgan_plugin.json_lines import read_lines
from gramgan_plugin.json_record import MOST_BYTES, parse_json

logger = logging.getLogger("basicsr")


def find_resume_state(opt: dict[str, Any], warn: Callable[[str], None] = logger.warning) -> Path | None:
    """The training state to resume from, or None for a fresh start.

    ``--auto_resume`` takes the newest whole checkpoint of the run, passing over damaged ones with a warning; where
    the run has none, or without ``--auto_resume``, ``path.resume_state`` may name one.

    Args:
        opt: resolved options.
        warn: takes the warnings.

    Raises:
        UserError: if the one named is missing or damaged.
    """
    if opt["auto_resume"]:
        newest = newest_checkpoint(Path(opt["path"]["training_states"]), warn)
        if newest is not None:
            return newest
    named = opt["path"].get("resume_state")
    if not named:
        return None
    state = Path(named)
    if not state.is_file():
        raise UserError(f"path.resume_state: {state}: no such file")
    problem = damage(state)
    # A state written by upstream has no list of files to compare with.
    if problem and state.with_suffix(".json").exists():
        raise UserError(f"path.resume_state: {state}: {problem}")
    for newer in _states(state.parent) if is_of_run(state, opt) and state.stem.isdecimal() else ():
        if int(newer.stem) > int(state.stem) and damage(newer, contents=False) is None:
            warn(
                f"going on from {state}, though there is {newer.name}: until this run has come further than that, "
                "--auto_resume would take the other"
            )
            break
    return state


def newest_checkpoint(folder: Path, warn: Callable[[str], None] = logger.warning) -> Path | None:
    """The newest ``N.state`` in ``folder`` whose files are all there and as they were written."""
    for state in _states(folder):
        problem = damage(state)
        if problem is None:
            return state
        warn(f"{state} is passed over: {problem}")
    return None


def is_of_run(state: Path | None, opt: dict[str, Any]) -> bool:
    """Whether a state lies in the run's own folder, so that the run goes on; from any other a new run starts."""
    return state is not None and state.parent.resolve() == Path(opt["path"]["training_states"]).resolve()


def _states(folder: Path) -> list[Path]:
    """The training states in a folder, the newest first."""
    states = [path for path in folder.glob("*.state") if path.stem.isdecimal()]
    return sorted(states, key=lambda path: int(path.stem), reverse=True)


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


def was_validated(run: Path, iteration: int, datasets: Iterable[str]) -> bool:
    """Whether a run's ``metrics.jsonl`` has the results of all these sets at an iteration.

    A checkpoint is written before the validation of its iteration, and a kill may have come between the two.
    """
    path = run / "metrics.jsonl"
    try:
        records = [record for _, record in read_lines(path)] if path.is_file() else []
    except UserError:
        return False
    # What is read may be of any type.
    return {*datasets} <= {str(record.get("dataset")) for record in records if record.get("iter") == iteration}


def load_resume_state(state: Path, opt: dict[str, Any]) -> dict[str, Any]:
    """Read a training state and point ``opt["path"]`` at the networks saved with it.

    Networks named in ``path.ignore_resume_networks`` keep their own ``pretrain_network_*``.

    Raises:
        UserError: if the file is no training state or a network's file is missing.
    """
    content = load_tensors(state)
    if not isinstance(content, dict) or not {"iter", "optimizers", "schedulers"} <= content.keys():
        raise UserError(f"{state}: not a training state")
    path = opt["path"]
    models = state.parent.parent / "models"
    for network in [key for key in opt if key.startswith("network_") and opt[key]]:
        if network in (path.get("ignore_resume_networks") or []):
            continue
        weights = models / f"net_{network.removeprefix('network_')}_{content['iter']}.pth"
        if not weights.is_file():
            raise UserError(f"{state}: its network {weights} is missing")
        path[f"pretrain_{network}"] = str(weights)
        path[f"param_key_{network.removeprefix('network_')}"] = "params"
    return content


def restore(model: Any, content: dict[str, Any], state: Path) -> int:
    """Put optimizers and schedules back, and return the iteration reached.

    Raises:
        UserError: if the state is of a run with other optimizers.
    """
    try:
        model.resume_training(content)
    except (AssertionError, ValueError, KeyError) as error:
        raise UserError(f"{state}: does not fit these options' optimizers or schedule: {error}") from error
    for optimizer in model.optimizers:
        # torch takes the state of any optimizer with as many parameters, and fails in the first step.
        missing = sorted(key for group in optimizer.param_groups for key in optimizer.defaults.keys() - group.keys())
        if missing:
            raise UserError(
                f"{state}: does not fit these options' optimizers or schedule: it has no {missing[0]}, which "
                f"{type(optimizer).__name__} needs; resume with the optimizers that wrote it"
            )
    return int(content["iter"])
