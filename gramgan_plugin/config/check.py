"""Check options before anything is built, and report every problem at once, each with the key's full path."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gramgan_plugin.config.consistency import check_consistency
from gramgan_plugin.config.construct import check_construction
from gramgan_plugin.config.findings import Findings, with_text_keys
from gramgan_plugin.config.foreign_words import hints, mistaken_type
from gramgan_plugin.config.keys import Key
from gramgan_plugin.config.parameters import parameters_of
from gramgan_plugin.config.schema import BETTER, COMPUTED, NETWORK_D, SECTIONS, TOP, with_current_names
from gramgan_plugin.config.schema_datasets import DATASETS, LOADER, OF_BASICSR
from gramgan_plugin.config.schema_models import MODELS, Model
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.components import Component, components
from gramgan_plugin.registries import lookup
from gramgan_plugin.utils.sections import section


def check_options(opt: Mapping[str, Any], *, is_train: bool | None = None) -> list[str]:
    """Check options against the classes that they name, and against each other. No file is opened (``check_files``).

    Networks, losses, metrics, optimizers and schedules are checked against their constructors' named parameters; a
    ``**kwargs`` accepts no further options. Datasets and models are checked against ``schema_datasets`` and
    ``schema_models``. Those of third parties are checked against their class attribute ``Options``, a mapping from
    keys (``train.NAME`` for those under ``train``) to descriptions.

    Args:
        opt: options as ``load_options`` or ``resolve_options`` return them.
        is_train: whether the options are for training; None: if they have a section ``train``.

    Returns:
        Warnings, one line each, about options that have no effect or could not be checked.

    Raises:
        OptionError: one line per problem.
    """
    found = Findings()
    whole, renamed = with_current_names(with_text_keys(opt, found), OF_BASICSR)
    found.hints = hints(whole)
    found.warnings += renamed
    if "variants" in whole and "model_type" not in whole:
        raise OptionError(
            "variants: this is an ablation file, for `basicsr ablate -opt FILE`, which checks it before it trains"
        )
    is_train = bool(whole.get("train")) if is_train is None else is_train
    model, cls = _model(whole, found)
    _check_top(whole, model, cls, found)
    for name, keys in SECTIONS.items():
        if isinstance(whole.get(name), Mapping):
            _check_keys(whole[name], keys, name, found)
    if isinstance(whole.get("train"), Mapping):
        _check_train(whole["train"], model, cls, found)
    for key, block in section(whole, "datasets").items():
        _check_dataset(key, block, found)
    for component in components(_well_formed(whole)):
        _check_component(component, found)
    check_consistency(whole, model, is_train, found)
    _warn_of_computed(whole, found)
    return found.raise_errors()


def _model(opt: Mapping[str, Any], found: Findings) -> tuple[Model | None, Any]:
    """Return the declaration of the model class and the class; None for what is not known."""
    name = opt.get("model_type")
    if not isinstance(name, str):
        return None, None
    if (problem := mistaken_type("model", name, "model_type")) is not None:
        found.error("model_type", problem)
        return None, None
    try:
        cls = lookup("model", name, "model_type")
    except OptionError as error:
        found.catch(error)
        return None, None
    return MODELS.get(cls.__name__), cls


def _check_top(opt: Mapping[str, Any], model: Model | None, cls: Any, found: Findings) -> None:
    known = dict(TOP)
    if model is not None:
        known |= model.top
        if model.discriminator != "none":
            known["network_d"] = NETWORK_D
        _check_keys(opt, known, "", found)
        return
    networks = {key: Key("component", "a network", of="arch") for key in opt if key.startswith("network_")}
    declared = {key: Key("any", "") for key in _declared(cls) or () if not key.startswith("train.")}
    _check_keys(opt, {**networks, **declared, **known}, "", found, strict=_declared(cls) is not None, cls=cls)


def _check_train(train: Mapping[str, Any], model: Model | None, cls: Any, found: Findings) -> None:
    if model is not None:
        _check_keys(train, model.train, "train", found, of="" if cls.__name__ == "GramGANModel" else cls.__name__)
        return
    declared = _declared(cls)
    listed = {key.removeprefix("train."): Key("any", "") for key in declared or () if key.startswith("train.")}
    ours = any(base.__name__ == "GramGANModel" for base in getattr(cls, "__mro__", ()))
    for key, described in MODELS["GramGANModel"].train.items():
        if ours or key in listed or key in _GENERAL:
            listed[key] = described if key == "total_iter" else replace(described, needed="")
    blocks = {key: Key("any", "") for key in train if key.endswith("_opt") or key.startswith("optim_")}
    strict = declared is not None or ours
    _check_keys(train, listed if strict else {**blocks, **listed}, "train", found, strict=strict, cls=cls)


# What the training loop and BaseModel read, for any model.
_GENERAL = frozenset({"total_iter", "warmup_iter", "scheduler", "optim_g", "optim_d", "ema_decay", "tf32"})


def _declared(cls: Any) -> Mapping[str, str] | None:
    options = getattr(cls, "Options", None)
    return options if isinstance(options, Mapping) else None


def _check_dataset(key: str, block: Any, found: Findings) -> None:
    where = f"datasets.{key}"
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        found.error(where, "expected a section with a `type`")
        return
    if (problem := mistaken_type("dataset", block["type"], where)) is not None:
        found.error(f"{where}.type", problem)
        return
    try:
        cls = lookup("dataset", block["type"], f"{where}.type")
    except OptionError as error:
        found.catch(error)
        return
    phase = key.split("_")[0]
    if cls.__name__ in DATASETS:
        known = {**LOADER, **DATASETS[cls.__name__]}
        _check_keys(block, known, where, found, of=cls.__name__, phase=phase, group="datasets")
        return
    declared = _declared(cls)
    keys = {**LOADER, **{name: Key("any", "") for name in declared or ()}}
    strict = declared is not None
    _check_keys(block, keys, where, found, of=cls.__name__, phase=phase, group="datasets", strict=strict, cls=cls)


def _check_keys(
    block: Mapping[str, Any],
    known: Mapping[str, Key],
    where: str,
    found: Findings,
    *,
    of: str = "",
    phase: str = "train",
    group: str | None = None,
    strict: bool = True,
    cls: Any = None,
) -> None:
    """Check a section, and the sections in it, against the known keys; components are checked elsewhere."""
    prefix = f"{where}." if where else ""
    computed = COMPUTED.get(where if group is None else group, frozenset())
    unchecked = []
    for name, value in block.items():
        if name in known:
            _check_value(value, known[name], f"{prefix}{name}", found)
        elif name not in computed:
            if strict:
                found.unknown(where, name, known, of)
            else:
                unchecked.append(name)
    if unchecked and cls is not None:
        found.warn(where or "options", f"{cls.__name__} declares no options; not checked: {', '.join(unchecked)}")
    for name, key in known.items():
        missing = block.get(name) is None if key.kind != "flag" else name not in block
        if missing and (key.needed == "always" or (key.needed == "train" and phase == "train" and where)):
            found.error(f"{prefix}{name}", f"missing; {key.what}")


def _warn_of_computed(opt: Mapping[str, Any], found: Findings) -> None:
    """Warn of keys that a recorded options.yml contains: they are allowed, but have no effect."""
    names = sorted(COMPUTED[""] & opt.keys())
    names += [f"path.{name}" for name in sorted(COMPUTED["path"] & section(opt, "path").keys())]
    for key, block in section(opt, "datasets").items():
        true = {"phase": key.split("_")[0], "scale": opt.get("scale")}
        differs = [name for name in true if name in section(block) and section(block)[name] != true[name]]
        names += [f"datasets.{key}.{name}" for name in differs]
    if names:
        found.warn(", ".join(names), "computed for each run; the values here are not used")


def _check_value(value: Any, key: Key, path: str, found: Findings) -> None:
    problem = key.mistake(value)
    if problem is not None:
        if not (value is None and key.needed):  # reported as missing elsewhere
            found.error(path, problem)
        return
    if key.unused and value is not None and value != key.default:
        found.warn(path, key.unused)
    if key.kind == "section" and key.keys and isinstance(value, Mapping):
        known = key.keys
        for name, member in value.items():
            if name in known:
                _check_value(member, known[name], f"{path}.{name}", found)
            elif not key.open:
                found.unknown(path, name, known)
        for name, inner in known.items():
            if inner.needed == "always" and value.get(name) is None:
                found.error(f"{path}.{name}", f"missing; {inner.what}")


def _well_formed(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that ``components`` can read, with sections where sections belong."""
    whole = {key: value for key, value in opt.items() if key not in ("train", "val")}
    whole["train"] = section(opt, "train")
    if "extra_terms" in whole["train"]:
        whole["train"]["extra_terms"] = section(opt, "train", "extra_terms")
    whole["val"] = {"metrics": section(opt, "val", "metrics")}
    return whole


def _check_component(component: Component, found: Findings) -> None:
    if component.kind == "arch":
        problem = mistaken_type("arch", section(component.options).get("type"), component.where)
        if problem is not None:
            found.error(f"{component.where}.type", problem)
            return
    try:
        known = parameters_of(component)
    except OptionError as error:
        found.catch(error)
        return
    except (TypeError, ValueError):  # no signature to check against
        found.warn(component.where, f"{component.options['type']} has no signature; its options are not checked")
        return
    options, correct = component.options, True
    name = options["type"]
    for key, value in options.items():
        if key == "better" and component.kind == "metric":
            _check_value(value, BETTER, f"{component.where}.better", found)
        elif key in known:
            problem = known[key].mistake(value)
            correct &= problem is None
            if problem is not None:
                found.error(f"{component.where}.{key}", problem)
        elif key != "type":
            correct = False
            found.unknown(component.where, key, known, name)
    for key, parameter in known.items():
        if parameter.needed and key not in options:
            correct = False
            found.error(f"{component.where}.{key}", f"missing; {name} needs it")
    if correct:
        check_construction(component, found)
