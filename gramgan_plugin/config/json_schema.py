"""The declared options as a JSON schema, with which editors complete, explain and check option files."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from gramgan_plugin.config import annotations
from gramgan_plugin.config.construct import MASK, MASKED
from gramgan_plugin.config.foreign_words import FOR_DISCRIMINATOR, networks
from gramgan_plugin.config.keys import KINDS, Key
from gramgan_plugin.config.parameters import Parameter, parameters_of
from gramgan_plugin.config.schema import BETTER, COMPUTED, NETWORK_D, SECTIONS, TOP
from gramgan_plugin.config.schema_datasets import DATASETS, LOADER
from gramgan_plugin.config.schema_models import MODELS
from gramgan_plugin.config.schema_texture import TEXTURE
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.components import Component
from gramgan_plugin.models.schedules import known_schedulers
from gramgan_plugin.registries import registered

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PHASES = "^(train|(val|test)(_.*)?)$"


def json_schema() -> Schema:
    """Return the schema (draft 2020-12) of option files, with the classes that are registered now."""
    top = {**TOP, "network_d": NETWORK_D}
    properties = {name: _value(key) for name, key in top.items()}
    properties["model_type"] |= {"enum": _names("model")}
    for name, keys in SECTIONS.items():
        properties[name] = _nullable(_section(keys, COMPUTED.get(name, ()))) | {"description": TOP[name].what}
    properties["val"]["anyOf"][0]["properties"]["metrics"] = _many("metric", "a block for each metric, under any name")
    properties["datasets"] = {
        "description": TOP["datasets"].what,
        "type": "object",
        "patternProperties": {PHASES: {"$ref": "#/$defs/dataset"}},
        "additionalProperties": False,
    }
    return {
        "$schema": DIALECT,
        "title": "Option files of BasicSR with the Gram-GAN plugin",
        "type": "object",
        "properties": properties,
        "required": [name for name, key in top.items() if key.needed == "always"],
        "allOf": [*_models(top), *_roles()],
        "$defs": {
            "dataset": _dataset(),
            **{kind: _component(kind) for kind in ("arch", "loss", "metric", "optimizer", "scheduler")},
        },
    }


def _models(top: Mapping[str, Key]) -> Iterator[Schema]:
    for name, model in MODELS.items():
        own = {key: _value(value) for key, value in model.top.items()}
        train = _section(model.train, ())
        if "extra_terms" in train["properties"]:
            train["properties"]["extra_terms"] = _many("loss", model.train["extra_terms"].what)
        known = [key for key in top if key != "network_d" or model.discriminator != "none"]
        yield _if(
            "model_type",
            name,
            {
                "properties": {**own, "train": _nullable(train)},
                "propertyNames": {"enum": [*known, *own, *sorted(COMPUTED[""])]},
            },
        )


def _roles() -> Iterator[Schema]:
    """Require discriminators under ``network_d``, and other networks under ``network_g``."""
    for where in FOR_DISCRIMINATOR:
        yield {"properties": {where: {"properties": {"type": {"enum": networks(where)}}}}}


def _dataset() -> Schema:
    branches = []
    for name, keys in DATASETS.items():
        block = _section({**LOADER, **keys}, COMPUTED["datasets"])
        branches.append(_if("type", name, {key: value for key, value in block.items() if key != "type"}))
    return {
        "type": "object",
        "properties": {"type": {"enum": _names("dataset")}},
        "required": ["name", "type"],
        "allOf": branches,
    }


def _component(kind: str) -> Schema:
    names = _names(kind)
    branches = []
    for name in names:
        try:
            parameters = parameters_of(Component(("schema",), kind, {"type": name}))
        except (OptionError, TypeError, ValueError):  # a third party's without a signature
            continue
        properties = {key: _parameter(name, parameter) for key, parameter in parameters.items()}
        if kind == "metric":
            properties["better"] = _value(BETTER)
        needed = [key for key, parameter in parameters.items() if parameter.needed]
        body: Schema = {"properties": properties, "propertyNames": {"enum": ["type", *properties]}}
        branches.append(_if("type", name, body | ({"required": needed} if needed else {})))
    return {"type": "object", "properties": {"type": {"enum": names}}, "required": ["type"], "allOf": branches}


def _names(kind: str) -> list[str]:
    """Return the names that an option file can use; those of ``NAME_basicsr`` without the suffix."""
    if kind == "optimizer":
        return sorted(
            name
            for name, cls in vars(torch.optim).items()
            if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
        )
    if kind == "scheduler":
        return sorted(known_schedulers())
    return sorted(name.removesuffix("_basicsr") for name, _, _ in registered(kind))


def _section(keys: Mapping[str, Key], also: Any) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {name: _value(key) for name, key in keys.items()},
        "propertyNames": {"enum": [*keys, *sorted(also)]},
    }
    needed = [name for name, key in keys.items() if key.needed == "always"]
    return schema | ({"required": needed} if needed else {})


def _value(key: Key) -> Schema:
    if key.kind == "component":
        schema: Schema = {"$ref": f"#/$defs/{key.of}"}
    elif key.kind == "section" and key.keys:
        schema = _section(key.keys, ())
        if key.open:
            del schema["propertyNames"]
    else:
        schema = dict(KINDS[key.kind][2])
    limits: Schema = {} if key.least is None else {"minimum": key.least}
    limits |= {} if key.below is None else {"exclusiveMaximum": key.below}
    limits |= {"enum": list(key.choices)} if key.choices else {}
    if limits and schema.get("type") == "array":
        schema["items"] = schema["items"] | limits
    else:
        schema |= limits
    if key.default is None and key.needed != "always":
        schema = _nullable(schema)
    schema["description"] = key.what
    if key.default is not None:
        schema["default"] = key.default
    return schema


def _parameter(component: str, parameter: Parameter) -> Schema:
    default = parameter.default
    if component in MASKED and parameter.name == "mask":
        schema: Schema = {"anyOf": [{"type": "string"}, {"type": "null"}, _section(MASK, ())]}
    elif component == "GramPatchLoss" and parameter.name in TEXTURE:
        schema = _value(replace(TEXTURE[parameter.name], default=default))
    elif parameter.annotation is not None:
        schema = annotations.json_schema(parameter.annotation)
    elif parameter.key is not None:
        schema = _value(parameter.key)
    else:
        kinds = {bool: "boolean", int: "number", float: "number", str: "string", tuple: "array", list: "array"}
        schema = {"type": kinds[type(default)]} if type(default) in kinds and parameter.expected else {}
        if parameter.name in ("img_size", "patch_size"):
            schema = {}
    if parameter.what:
        schema["description"] = parameter.what
    if default is not inspect.Parameter.empty and isinstance(default, bool | int | float | str | tuple | list):
        schema["default"] = list(default) if isinstance(default, tuple) else default
    return schema


def _many(kind: str, what: str) -> Schema:
    return _nullable({"type": "object", "additionalProperties": {"$ref": f"#/$defs/{kind}"}}) | {"description": what}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _if(key: str, value: str, then: Schema) -> Schema:
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}
