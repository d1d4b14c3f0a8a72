"""Restore a schedule from a training state, or step it to the same iteration under other options."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from gramgan_plugin.checkpoints.state_form import as_list, is_finite, is_list_of
from gramgan_plugin.errors import OptionError

# Schedules that set the rate by their own option instead of the optimizer's lr -> that option.
OWN_RATES = {"OneCycleLR": "max_lr", "CyclicLR": "max_lr"}
# Keys of a schedule's state for its position; the others come from its options.
POSITION = frozenset(
    {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "verbose", "T_cur", "T_i"}
)


def restore_schedule(
    scheduler: Any, was: str, state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], iteration: int
) -> str | None:
    """Set a schedule to its position after ``iteration`` iterations of training.

    Args:
        scheduler: as built from the options, not stepped yet.
        was: the class that wrote the state.
        state: of the schedule; {} if the training state has none.
        groups: the parameter groups of the schedule's optimizer in the training state.
        iteration: reached, at least 0.

    Returns:
        None if the options are unchanged: the schedule is restored bit for bit. Otherwise a line for the log: what
        differs, and the current rate.

    Raises:
        OptionError: if the schedule ends before that iteration.
    """
    name = type(scheduler).__name__
    changes = [f"{name}, was {was}"] if was != name else _other_options(scheduler, state, groups)
    if not changes and _restore_exactly(scheduler, state, groups, iteration):
        return None
    _advance(scheduler, iteration)
    rates = ", ".join(f"{group['lr']:.3e}" for group in scheduler.optimizer.param_groups)
    reason = "; ".join(changes) or "its state is not one of this iteration"
    return f"train.scheduler: {reason}; computed anew to iteration {iteration:,d}, where the rate is {rates}"


def _other_options(scheduler: Any, state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the options of a schedule that differ from those of its state, as text."""
    own, found, rates = scheduler.state_dict(), [], ""
    for key in sorted((own.keys() | state.keys()) - POSITION, key=str):
        if key not in own or key not in state:
            found.append("it was another schedule")
        elif key == "base_lrs" and not same_setting(own[key], state[key]):
            rates = "another lr"
        elif not same_setting(own[key], state[key]):
            found.append(f"{key.lstrip('_')}: {shown_setting(own[key])}, was {shown_setting(state[key])}")
    for group, before in zip(scheduler.optimizer.param_groups, groups, strict=False):
        for key in ("max_lr", "base_momentum", "max_momentum"):  # min_lr follows from max_lr
            if key in group and not same_setting(group[key], before.get(key)):
                found.append(f"{key}: {shown_setting(group[key])}, was {shown_setting(before.get(key))}")
    return list(dict.fromkeys(found)) or [rates] * bool(rates)


def _restore_exactly(
    scheduler: Any, state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], iteration: int
) -> bool:
    """Restore a schedule of unchanged options; return False if the state is not of this iteration."""
    own = scheduler.state_dict()
    position = {key: state[key] for key in (POSITION & own.keys() & state.keys()) - {"verbose"}}
    rates = state.get("_last_lr")
    fits = position.get("last_epoch") == max(iteration - 1, 0) and len(groups) == len(scheduler.optimizer.param_groups)
    fits = fits and is_list_of(rates, int | float) and len(rates) == len(groups)  # type: ignore[arg-type]
    numbers = [value for key, value in position.items() if key != "_last_lr"]
    if not fits or not all(isinstance(value, bool) or is_finite(value) for value in [*numbers, *as_list(rates)]):
        return False
    set_now = [{key: before[key] for key in ("lr", "betas", "momentum") if key in before} for before in groups]
    if not all(is_finite(member) for one in set_now for value in one.values() for member in as_list(value)):
        return False
    if any(isinstance(one.get("lr"), list) or one.get("lr", 0) < 0 for one in set_now) or min(as_list(rates)) < 0:
        return False
    scheduler.load_state_dict({**own, **position})  # CyclicLR asks for all keys
    for group, now in zip(scheduler.optimizer.param_groups, set_now, strict=True):
        group["lr"] = now.get("lr", group["lr"])
        if "base_momentum" in group and "momentum" in now:
            group["momentum"] = now["momentum"]
        elif "base_momentum" in group and len(as_list(now.get("betas"))) == 2:
            group["betas"] = (now["betas"][0], *group["betas"][1:])
    return True


def _advance(scheduler: Any, iteration: int) -> None:
    """Step a new schedule as often as training does up to an iteration: not before the first one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the optimizer has not stepped
        try:
            for _ in range(iteration - 1):
                scheduler.step()
        except (ValueError, ArithmeticError) as error:
            raise OptionError(
                f"train.scheduler: {type(scheduler).__name__} ends before iteration {iteration:,d}, which the run has "
                f"reached ({error}); make it as long as train.total_iter"
            ) from error


def same_setting(own: Any, saved: Any) -> bool:
    """Return whether two settings are the same; a saved one may be of any type."""
    if isinstance(own, Mapping):
        same = isinstance(saved, Mapping) and own.keys() == saved.keys()
        return same and all(same_setting(own[key], saved[key]) for key in own)
    if isinstance(own, list | tuple):
        same = isinstance(saved, list | tuple) and len(own) == len(saved)
        return same and all(same_setting(*pair) for pair in zip(own, saved, strict=True))
    return bool(own == saved)


def shown_setting(value: Any) -> str:
    """Return a setting as text for a message, in at most 60 characters."""
    value = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:55]}..."
