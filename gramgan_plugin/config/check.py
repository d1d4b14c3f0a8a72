"""Checking options before anything is built: every problem at once, each with the key's full path."""

from collections.abc import Iterator, Mapping
from typing import Any

from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.components import NOT_A_METRICS_OPTION, Component, components
from gramgan_plugin.registration import did_you_mean, lookup


def check_options(opt: Mapping[str, Any]) -> None:
    """Check the types that an option file names and the options given to them.

    Networks, losses, metrics, optimizers and schedules are checked against their constructors' named parameters
    (a ``**kwargs`` does not make a misspelt option right). For models that declare them (``TRAIN_KEYS``), the keys
    of ``train`` are checked, too.

    Args:
        opt: options as ``load_options`` or ``resolve_options`` give them.

    Raises:
        OptionError: one line a problem.
    """
    problems = [*_check_model(opt), *_check_datasets(opt)]
    for component in components(opt):
        problems += _check_component(component)
    if problems:
        raise OptionError("\n".join(problems))


def _check_model(opt: Mapping[str, Any]) -> Iterator[str]:
    try:
        model = lookup("model", str(opt.get("model_type")), "model_type")
    except OptionError as error:
        yield str(error)
        return
    known = getattr(model, "TRAIN_KEYS", None)
    for key in opt.get("train") or {}:
        if known is not None and key not in known:
            yield f"train.{key}: unknown option{did_you_mean(key, known)}"


def _check_datasets(opt: Mapping[str, Any]) -> Iterator[str]:
    for key, block in (opt.get("datasets") or {}).items():
        if not isinstance(block, Mapping) or "type" not in block:
            yield f"datasets.{key}: expected a section with a `type`"
            continue
        try:
            lookup("dataset", str(block["type"]), f"datasets.{key}.type")
        except OptionError as error:
            yield str(error)


def _check_component(component: Component) -> Iterator[str]:
    try:
        known = component.parameters()
    except OptionError as error:
        yield str(error)
        return
    extra = NOT_A_METRICS_OPTION if component.kind == "metric" else set()
    for key in component.options:
        if key != "type" and key not in known and key not in extra:
            name = component.options["type"]
            yield f"{component.where}.{key}: unknown option of {name}{did_you_mean(str(key), known)}"
