"""List the components of an option file, each with the constructor that takes its options."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from gramgan_plugin.building.optimizers import optimizer_class
from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.schedules import scheduler_class
from gramgan_plugin.registries import lookup

# Arguments that the caller of a metric passes, and an option that BasicSR reads itself.
NOT_A_METRICS_OPTION = {"img", "img2", "better"}
# Arguments that the model passes.
NOT_AN_OPTION = {"metric": NOT_A_METRICS_OPTION, "optimizer": {"params"}, "scheduler": {"optimizer"}}


@dataclass(frozen=True)
class Component:
    """One block of options with a ``type``.

    Attributes:
        path: its keys, such as ``("train", "pixel_opt")``.
        kind: ``arch``, ``loss``, ``metric``, ``optimizer`` or ``scheduler``.
        options: the block.
    """

    path: tuple[str, ...]
    kind: str
    options: Any

    @property
    def where(self) -> str:
        """The path in the form of messages: ``train.pixel_opt``."""
        return ".".join(self.path)

    def constructor(self) -> Callable[..., Any]:
        """Return the constructor that takes the options.

        Raises:
            OptionError: if the block has no ``type``, or an unknown one.
        """
        if not isinstance(self.options, Mapping) or "type" not in self.options:
            raise OptionError(f"{self.where}: expected a section with a `type`")
        name = str(self.options["type"])
        if self.kind == "optimizer":
            return optimizer_class(name, f"{self.where}.type")
        if self.kind == "scheduler":
            return scheduler_class(name)
        constructor: Callable[..., Any] = lookup(self.kind, name, f"{self.where}.type")
        return constructor

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Return the constructor's named parameters, without ``**kwargs``."""
        return {
            p.name: p
            for p in inspect.signature(self.constructor()).parameters.values()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in NOT_AN_OPTION.get(self.kind, ())
        }


def components(opt: Mapping[str, Any]) -> Iterator[Component]:
    """Yield the networks, losses, optimizers, schedule and metrics of an option file, in its order."""
    for key, block in opt.items():
        if key.startswith("network_") and block:
            yield Component((key,), "arch", block)
    for key, block in (opt.get("train") or {}).items():
        if key == "extra_terms":
            for name, term in (block or {}).items():
                yield Component(("train", key, name), "loss", term)
        elif block and key.endswith("_opt"):
            yield Component(("train", key), "loss", block)
        elif block and key.startswith("optim_"):
            yield Component(("train", key), "optimizer", block)
        elif block and key == "scheduler":
            yield Component(("train", key), "scheduler", block)
    for key, block in ((opt.get("val") or {}).get("metrics") or {}).items():
        yield Component(("val", "metrics", key), "metric", block)


def with_defaults(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``opt`` in which each component also has the defaults of its constructor."""
    whole = deepcopy(dict(opt))
    for component in components(whole):
        for name, parameter in component.parameters().items():
            if parameter.default is not parameter.empty and isinstance(
                parameter.default, bool | int | float | str | list | tuple | None
            ):
                component.options.setdefault(name, parameter.default)
    return whole
