"""Find out which runs are finished, and whether they were trained with the options that are asked for now."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gramgan_plugin.ablation.ablation_file import AblationRun
from gramgan_plugin.checkpoints.resume import damage, newest_checkpoint
from gramgan_plugin.config.keys import is_whole
from gramgan_plugin.config.resolve import resolve_options
from gramgan_plugin.config.schema import COMPUTED
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.models.components import with_defaults
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import shown_value
from gramgan_plugin.utils.yaml_io import parse_yaml, yaml_text

MOST_SHOWN = 3  # changed keys in a message
MISSING = "left out"


def has_checkpoint(run: AblationRun) -> bool:
    """Return whether a run has a whole checkpoint, from which it is resumed."""
    return newest_checkpoint(run.folder / "training_states", lambda level, line: None) is not None


def is_finished(run: AblationRun) -> bool:
    """Return whether a run has the whole checkpoint of its last iteration, and the networks ``latest``."""
    total = section(run.options, "train").get("total_iter")
    if not is_whole(total) or not run.weights.is_file():
        return False
    return damage(run.folder / "training_states" / f"{int(total)}.state") is None


def check_unchanged(runs: Sequence[AblationRun]) -> None:
    """Check that runs with checkpoints were trained with the options that they have now.

    Args:
        runs: whose options are correct.

    Raises:
        OptionError: one line for each that was not.
    """
    lines = []
    for run in runs:
        if not has_checkpoint(run):
            continue
        changed = _changes(run)
        if changed:
            more = f" and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else ""
            lines.append(
                f"{run.folder} was trained with other options: {', '.join(changed[:MOST_SHOWN])}{more}; move the "
                "folder away to train it anew, or give the ablation another `name`"
            )
    if lines:
        raise OptionError("\n".join(lines))


def _changes(run: AblationRun) -> list[str]:
    """Return the resolved options that differ from the recorded ones."""
    path = run.folder / "options.yml"
    try:
        recorded = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read, so the run cannot be compared: {error}; move its folder away"
        ) from error
    if not isinstance(recorded, dict):
        raise UserError(f"{path}: not a run's options; move its folder away")
    before = dict(_flat(_comparable(recorded)))
    now = dict(_flat(_comparable(resolve_options(run.options, is_train=True))))
    return [
        f"{key} was {shown_value(before.get(key, MISSING))}, is {shown_value(now.get(key, MISSING))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, MISSING) != now.get(key, MISSING)
    ]


def _comparable(opt: dict[str, Any]) -> dict[str, Any]:
    """Return options as they are recorded, without those that a run computes and the number of GPUs."""
    whole = parse_yaml(yaml_text(with_defaults(opt)), "options")
    kept = {key: value for key, value in whole.items() if key not in (*COMPUTED[""], "num_gpu")}
    kept["path"] = _without(section(whole, "path"), COMPUTED["path"])
    kept["datasets"] = {
        name: _without(section(block), COMPUTED["datasets"]) for name, block in section(whole, "datasets").items()
    }
    return kept


def _without(block: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key not in names}


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
