"""Putting a saved training state into the optimizers and schedules of a run whose options may have changed since.

What the option file says holds. The state brings what no file can: the optimizers' moments, and where a schedule is.
Every tensor and number of it is checked before torch sees it, since the fused optimizers trust the shapes of their
state and would read and write beyond it.
"""

import inspect
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.optimizers import WAYS
from gramgan_plugin.sections import section

# Where a schedule is, not what it is; the other keys of its state come from its options.
POSITION = frozenset(
    {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "verbose", "T_cur", "T_i"}
)
# Moments that are never negative.
SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg"}
# Schedules with rates of their own.
OWN_RATES = {"OneCycleLR", "CyclicLR"}
# More than any training takes: a schedule that is computed anew is stepped that often.
MOST_ITERATIONS = 10**7
# Settings of a group that come from the schedule's options, as its constructor leaves them there.
OF_SCHEDULE = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")


def check_form(content: Any) -> None:
    """Check that a training state has the parts of one, each in its form.

    Raises:
        ValueError: naming the first part that is not, and what it should be.
    """
    _require(isinstance(content, Mapping), "it is no mapping")
    for key in ("iter", "epoch"):
        value = content.get(key, 0)
        _require(_is_count(value) and value <= MOST_ITERATIONS, f"'{key}' is not a number of iterations or epochs")
    for key in ("optimizers", "schedulers"):
        _require(_is_list(content.get(key), Mapping), f"'{key}' is not a list of mappings")
    for number, optimizer in enumerate(content["optimizers"]):
        where = f"optimizers.{number}"
        _require(isinstance(optimizer.get("state"), Mapping), f"'{where}.state' is not a mapping")
        _require(_is_list(optimizer.get("param_groups"), Mapping), f"'{where}.param_groups' is not a list of mappings")
        _require(_is_list(list(optimizer["state"].values()), Mapping), f"'{where}.state' does not hold mappings")
        ids = [one for group in optimizer["param_groups"] for one in _list(group.get("params"))]
        _require(all(map(_is_count, ids)), f"'{where}.param_groups' has params that are not whole numbers")
        _require(len(set(ids)) == len(ids), f"'{where}.param_groups' names a parameter twice")
    settings = [content["schedulers"], *(optimizer["param_groups"] for optimizer in content["optimizers"])]
    _require(all(map(_has_no_tensor, settings)), "a schedule or 'param_groups' holds a tensor")
    scaler = content.get("scaler")
    _require(scaler is None or isinstance(scaler, Mapping), "'scaler' is not a mapping")
    _require(all(map(_is_finite, (scaler or {}).values())), "'scaler' does not hold finite numbers")
    _require(
        content.get("random") is None or _is_list(content["random"], Mapping), "'random' is not a list of mappings"
    )


def restore_optimizers(
    optimizers: Mapping[str, Optimizer],
    schedulers: Sequence[Any],
    content: Mapping[str, Any],
    *,
    replaced: Iterable[str] = (),
) -> list[str]:
    """Carry moments and schedules over; where options have changed since, the present ones hold.

    A schedule whose options are as they were is put where it was, bit for bit. One whose options have changed is
    stepped from its start to the iteration reached.

    Args:
        optimizers: as built from the options, with their schedules; by the name of their option block
            (``train.optim_g``), in the order of the state's.
        schedulers: one an optimizer.
        content: a training state that ``check_form`` has passed.
        replaced: names of the optimizers whose network starts from other weights than those of the state.

    Returns:
        A line for each thing that is not as it was, for the log.

    Raises:
        ValueError: if the state is of other networks or damaged.
        OptionError: if a schedule has ended before the iteration reached.
    """
    saved = content["optimizers"]
    if len(saved) != len(optimizers):
        raise ValueError(f"it has {len(saved)} optimizers, these options have {len(optimizers)}")
    classes = section(content, "classes")
    lines: list[str] = []
    for number, (name, optimizer) in enumerate(optimizers.items()):
        was = _class_before(classes.get("optimizers"), number, optimizer, saved[number])
        names = {_entry(classes.get("schedulers"), number), *(type(one).__name__ for one in schedulers[number:][:1])}
        changes = _other_settings(optimizer, saved[number], own_rates=bool(names & OWN_RATES))
        changes = changes if was == type(optimizer).__name__ else []
        lines += _restore_moments(optimizer, saved[number], name, was, replaced=name in set(replaced))
        if changes:
            lines.append(f"{name}: {'; '.join(changes)}")
    for number, scheduler in enumerate(schedulers):
        states = content["schedulers"]
        state = states[number] if number < len(states) else {}
        group_states = saved[number]["param_groups"] if number < len(saved) else []
        was = _entry(classes.get("schedulers"), number) or type(scheduler).__name__
        changes = [f"{type(scheduler).__name__}, was {was}"] if was != type(scheduler).__name__ else []
        changes = changes or _other_schedule(scheduler, state, group_states)
        iteration = int(content.get("iter", 0))
        if not changes and _put_back(scheduler, state, group_states, iteration):
            continue
        _advance(scheduler, iteration)
        rates = ", ".join(f"{group['lr']:.3e}" for group in scheduler.optimizer.param_groups)
        reason = "; ".join(changes) or "its state is not one of this iteration"
        lines.append(f"train.scheduler: {reason}; computed anew to iteration {iteration:,d}, where the rate is {rates}")
    return list(dict.fromkeys(lines))


def _restore_moments(
    optimizer: Optimizer, saved: Mapping[str, Any], name: str, was: str, *, replaced: bool
) -> list[str]:
    """Load the moments; the settings stay as they are. Where they cannot be carried, the moments start fresh."""
    fresh = f"{name}: the moments start anew, since"
    if replaced:
        return [f"{fresh} path.ignore_resume_networks starts the network from other weights"]
    if was != type(optimizer).__name__:
        return [f"{fresh} the optimizer is {type(optimizer).__name__}, was {was}"]
    own = optimizer.state_dict()
    ids = [_list(group.get("params")) for group in saved["param_groups"]]
    if [len(group) for group in ids] != [len(group["params"]) for group in own["param_groups"]]:
        raise ValueError(f"{name}: the parameter groups are those of another network")
    state: dict[int, dict[str, Any]] = {}
    for group, mine, theirs in zip(optimizer.param_groups, own["param_groups"], ids, strict=True):
        trials: dict[Any, dict[str, Any]] = {}
        for parameter, number, old in zip(group["params"], mine["params"], theirs, strict=True):
            entry = saved["state"].get(old)
            if not entry:
                continue
            form = (parameter.shape, parameter.dtype)
            if form not in trials:
                trials[form] = _state_after_a_step(optimizer, group, parameter)
            missing = sorted(str(key) for key in trials[form].keys() - entry.keys())
            if missing:
                return [f"{fresh} the state has no {missing[0]}, which {type(optimizer).__name__} needs"]
            state[number] = {key: entry[key] for key in trials[form]}
            wrong = next((key for key, value in trials[form].items() if not _alike(entry[key], value)), None)
            wrong = wrong or next((key for key in SQUARES & entry.keys() if bool((entry[key] < 0).any())), None)
            if wrong is not None:
                raise ValueError(f"{name}: {wrong} of parameter {number} does not fit it, or holds impossible values")
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
    return []


def _state_after_a_step(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """What this optimizer keeps for a parameter of this shape: found by a step on zeros, on the CPU."""
    accepted = inspect.signature(type(optimizer)).parameters.keys() - {"params", *WAYS}
    settings = {key: value for key, value in group.items() if key in accepted}
    trial = torch.zeros(parameter.shape, dtype=parameter.dtype, requires_grad=True)
    trial.grad = torch.zeros_like(trial)
    one = type(optimizer)([trial], **settings)
    one.step()
    return dict(one.state[trial])


def _alike(value: Any, expected: Any) -> bool:
    """Whether a saved value can stand where ``expected`` stood after a step."""
    if not isinstance(expected, Tensor):
        return value is None if expected is None else _is_finite(value)
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and value.device.type == "cpu" and value.dtype == expected.dtype
        if not dense or value.shape != expected.shape or not bool(torch.isfinite(value).all()):
            return False
        return expected.dim() > 0 or float(value) >= 0
    # Older releases of torch count steps in plain numbers.
    return expected.dim() == 0 and _is_finite(value) and value >= 0


def _class_before(names: Any, number: int, optimizer: Optimizer, saved: Mapping[str, Any]) -> str:
    """The class that wrote a state; the present one where nothing tells it apart."""
    name = _entry(names, number)
    if name is not None:
        return name
    own = type(optimizer).__name__
    decoupled = [group.get("decoupled_weight_decay") for group in saved["param_groups"]]
    if own in ("Adam", "AdamW") and any(isinstance(flag, bool) and flag != (own == "AdamW") for flag in decoupled):
        return "AdamW" if own == "Adam" else "Adam"
    return own


def _other_settings(optimizer: Optimizer, saved: Mapping[str, Any], *, own_rates: bool) -> list[str]:
    """The settings of the option file that differ from those of the state, such as ``lr: 1e-06, was 0.0001``.

    ``own_rates``: the schedule, now or before, does not go by the optimizer's lr.
    """
    found: dict[str, None] = {}
    for group, before in zip(optimizer.param_groups, saved["param_groups"], strict=False):
        scheduled = {"lr"} | ({"betas", "momentum"} if "base_momentum" in group else set())
        for key, value in group.items():
            if key in scheduled or key in ("params", "decoupled_weight_decay", *WAYS) or key not in before:
                continue
            # The schedule keeps the rate of the file under another name; some have rates of their own (max_lr).
            if key in OF_SCHEDULE and (key != "initial_lr" or own_rates):
                continue
            if not _equal(value, before[key]):
                label = "lr" if key == "initial_lr" else key
                found[f"{label}: {_shown(value)}, was {_shown(before[key])}"] = None
    return list(found)


def _other_schedule(scheduler: Any, state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options of a schedule that differ from those of its state."""
    own, found, rates = scheduler.state_dict(), [], ""
    for key in sorted((own.keys() | state.keys()) - POSITION, key=str):
        if key not in own or key not in state:
            found.append("it was another schedule")
        elif key == "base_lrs" and not _equal(own[key], state[key]):
            rates = "another lr"
        elif not _equal(own[key], state[key]):
            found.append(f"{key.lstrip('_')}: {_shown(own[key])}, was {_shown(state[key])}")
    for group, before in zip(scheduler.optimizer.param_groups, groups, strict=False):
        for key in ("max_lr", "base_momentum", "max_momentum"):  # min_lr follows from max_lr
            if key in group and not _equal(group[key], before.get(key)):
                found.append(f"{key}: {_shown(group[key])}, was {_shown(before.get(key))}")
    return list(dict.fromkeys(found)) or [rates] * bool(rates)


def _put_back(scheduler: Any, state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], iteration: int) -> bool:
    """Put a schedule of unchanged options where it was; False if the state is not of this iteration."""
    own = scheduler.state_dict()
    position = {key: state[key] for key in (POSITION & own.keys() & state.keys()) - {"verbose"}}
    rates = state.get("_last_lr")
    fits = position.get("last_epoch") == max(iteration - 1, 0) and len(groups) == len(scheduler.optimizer.param_groups)
    fits = fits and _is_list(rates, int | float) and len(rates) == len(groups)  # type: ignore[arg-type]
    numbers = [value for key, value in position.items() if key != "_last_lr"]
    if not fits or not all(isinstance(value, bool) or _is_finite(value) for value in [*numbers, *_list(rates)]):
        return False
    set_now = [{key: before[key] for key in ("lr", "betas", "momentum") if key in before} for before in groups]
    if not all(_is_finite(member) for one in set_now for value in one.values() for member in _list(value)):
        return False
    if any(isinstance(one.get("lr"), list) or one.get("lr", 0) < 0 for one in set_now) or min(_list(rates)) < 0:
        return False
    scheduler.load_state_dict({**own, **position})  # CyclicLR asks for keys that are no position
    for group, now in zip(scheduler.optimizer.param_groups, set_now, strict=True):
        group["lr"] = now.get("lr", group["lr"])
        if "base_momentum" in group and "momentum" in now:
            group["momentum"] = now["momentum"]
        elif "base_momentum" in group and len(_list(now.get("betas"))) == 2:
            group["betas"] = (now["betas"][0], *group["betas"][1:])
    return True


def _advance(scheduler: Any, iteration: int) -> None:
    """Step a fresh schedule as often as training does up to an iteration: not before the first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch misses the optimizer's steps
        try:
            for _ in range(iteration - 1):
                scheduler.step()
        except (ValueError, ArithmeticError) as error:
            raise OptionError(
                f"train.scheduler: {type(scheduler).__name__} ends before iteration {iteration:,d}, which the run has "
                f"reached ({error}); make it as long as train.total_iter"
            ) from error


def _entry(names: Any, number: int) -> str | None:
    return names[number] if _is_list(names, str) and number < len(names) else None


def _has_no_tensor(value: Any) -> bool:
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return not isinstance(value, Tensor) and all(map(_has_no_tensor, members))


def _equal(own: Any, saved: Any) -> bool:
    """Whether two settings are the same; a saved one may be anything."""
    if isinstance(own, Mapping):
        same = isinstance(saved, Mapping) and own.keys() == saved.keys()
        return same and all(_equal(own[key], saved[key]) for key in own)
    if isinstance(own, list | tuple):
        same = isinstance(saved, list | tuple) and len(own) == len(saved)
        return same and all(_equal(*pair) for pair in zip(own, saved, strict=True))
    return bool(own == saved)


def _shown(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:55]}..."


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_list(value: Any, kind: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(member, kind) for member in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
