"""Restore optimizers and schedules from a training state, also where the options have changed since it was saved.

Settings come from the option file; the optimizers' moments and the positions of the schedules come from the state.
Every tensor and number of the state is checked before torch uses it: the fused optimizers trust the shapes of their
state, and would read and write out of bounds.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gramgan_plugin.checkpoints.restore_schedules import OWN_RATES, restore_schedule, same_setting, shown_setting
from gramgan_plugin.checkpoints.state_form import as_list, is_finite, is_list_of
from gramgan_plugin.utils.sections import section

# Settings that choose how an optimizer computes, not what.
IMPLEMENTATION_FLAGS = ("fused", "foreach", "capturable", "differentiable")
# Moments that are never negative.
SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg"}
# Settings of a group that the constructor of a schedule sets from its options.
OF_SCHEDULE = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")


def restore_optimizers(
    optimizers: Mapping[str, Optimizer],
    schedulers: Sequence[Any],
    content: Mapping[str, Any],
    *,
    replaced: Iterable[str] = (),
) -> list[str]:
    """Restore moments and schedules; settings are the current ones.

    A schedule with unchanged options is restored bit for bit. One with changed options is stepped from its start to the
    iteration reached.

    Args:
        optimizers: as built from the options, with their schedules; by the name of their option block
            (``train.optim_g``), in the order of the state.
        schedulers: one per optimizer.
        content: a training state that ``check_form`` has passed.
        replaced: names of the optimizers whose network does not start from the weights of the state.

    Returns:
        A line for the log for each change.

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
        changes = _other_settings(optimizer, saved[number], own_rates=bool(names & OWN_RATES.keys()))
        changes = changes if was == type(optimizer).__name__ else []
        lines += _restore_moments(optimizer, saved[number], name, was, replaced=name in set(replaced))
        if changes:
            lines.append(f"{name}: {'; '.join(changes)}")
    for number, scheduler in enumerate(schedulers):
        state = dict(enumerate(content["schedulers"])).get(number, {})
        groups = dict(enumerate(saved)).get(number, {}).get("param_groups", [])
        was = _entry(classes.get("schedulers"), number) or type(scheduler).__name__
        line = restore_schedule(scheduler, was, state, groups, int(content.get("iter", 0)))
        lines += [] if line is None else [line]
    return list(dict.fromkeys(lines))


def _restore_moments(
    optimizer: Optimizer, saved: Mapping[str, Any], name: str, was: str, *, replaced: bool
) -> list[str]:
    """Restore the moments, or return why they start anew (another optimizer or network); settings stay the same."""
    fresh = f"{name}: the moments start anew, since"
    if replaced:
        return [f"{fresh} path.ignore_resume_networks starts the network from other weights"]
    if was != type(optimizer).__name__:
        return [f"{fresh} the optimizer is {type(optimizer).__name__}, was {was}"]
    own = optimizer.state_dict()
    ids = [as_list(group.get("params")) for group in saved["param_groups"]]
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
            wrong = next((key for key, value in trials[form].items() if not _fits(entry[key], value)), None)
            wrong = wrong or next((key for key in SQUARES & trials[form].keys() if bool((entry[key] < 0).any())), None)
            if wrong is not None:
                raise ValueError(f"{name}: {wrong} of parameter {number} does not fit it, or holds impossible values")
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
    return []


def _state_after_a_step(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """Return the state that this optimizer keeps for such a parameter, after a step on zeros on the CPU."""
    accepted = inspect.signature(type(optimizer)).parameters.keys() - {"params", *IMPLEMENTATION_FLAGS}
    settings = {key: value for key, value in group.items() if key in accepted}
    trial = torch.zeros(parameter.shape, dtype=parameter.dtype, requires_grad=True)
    trial.grad = torch.zeros_like(trial)
    one = type(optimizer)([trial], **settings)
    one.step()
    return dict(one.state[trial])


def _fits(value: Any, expected: Any) -> bool:
    """Return whether a saved value has the form of ``expected``, and is one that a step can produce."""
    if not isinstance(expected, Tensor):
        return value is None if expected is None else is_finite(value)
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and value.device.type == "cpu" and value.dtype == expected.dtype
        if not dense or value.shape != expected.shape or not bool(torch.isfinite(value).all()):
            return False
        return expected.dim() > 0 or float(value) >= 0
    # Older releases of torch count steps in plain numbers.
    return expected.dim() == 0 and is_finite(value) and value >= 0


def _class_before(names: Any, number: int, optimizer: Optimizer, saved: Mapping[str, Any]) -> str:
    """Return the name of the class that wrote a state; the current one's if the state does not show it."""
    name = _entry(names, number)
    if name is not None:
        return name
    own = type(optimizer).__name__
    decoupled = [group.get("decoupled_weight_decay") for group in saved["param_groups"]]
    if own in ("Adam", "AdamW") and any(isinstance(flag, bool) and flag != (own == "AdamW") for flag in decoupled):
        return "AdamW" if own == "Adam" else "Adam"
    return own


def _other_settings(optimizer: Optimizer, saved: Mapping[str, Any], *, own_rates: bool) -> list[str]:
    """Return the settings that differ from those of the state, such as ``lr: 1e-06, was 0.0001``.

    ``own_rates``: the schedule, now or before, sets its own rates instead of the optimizer's lr.
    """
    found: dict[str, None] = {}
    for group, before in zip(optimizer.param_groups, saved["param_groups"], strict=False):
        scheduled = {"lr"} | ({"betas", "momentum"} if "base_momentum" in group else set())
        for key, value in group.items():
            if (
                key in scheduled
                or key in ("params", "decoupled_weight_decay", *IMPLEMENTATION_FLAGS)
                or key not in before
            ):
                continue
            # Schedules keep the file's rate as initial_lr; some have their own rates (max_lr).
            if key in OF_SCHEDULE and (key != "initial_lr" or own_rates):
                continue
            if not same_setting(value, before[key]):
                label = "lr" if key == "initial_lr" else key
                found[f"{label}: {shown_setting(value)}, was {shown_setting(before[key])}"] = None
    return list(found)


def _entry(names: Any, number: int) -> str | None:
    return names[number] if is_list_of(names, str) and number < len(names) else None
