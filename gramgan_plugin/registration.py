"""The one file that names BasicSR's registries: what this plugin puts there, and how a name is looked up."""

import difflib
import importlib
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import OptionError

KINDS = ("arch", "loss", "model", "dataset", "metric")
# What this plugin adds: all that a package lists in `__all__`.
PACKAGES = {
    "arch": "gramgan_plugin.archs",
    "loss": "gramgan_plugin.losses",
    "model": "gramgan_plugin.models",
    "dataset": "gramgan_plugin.data",
}


def registries() -> dict[str, Any]:
    """BasicSR's registries by kind (``arch``, ``loss``, ``model``, ``dataset``, ``metric``)."""
    from basicsr.utils import registry

    return {kind: getattr(registry, f"{kind.upper()}_REGISTRY") for kind in KINDS}


def register_all() -> None:
    """Put this plugin's classes into BasicSR's registries, under their class names. Running it again is harmless."""
    known = registries()
    for kind, package in PACKAGES.items():
        module = importlib.import_module(package)
        for cls in (getattr(module, name) for name in module.__all__):
            if cls.__name__ not in known[kind]:
                known[kind].register(cls)


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import third parties' modules, which register their classes on import.

    Those that installed packages announce under the entry-point group ``basicsr.plugins`` come first, then
    ``modules``, which may also lie in the working directory. An option file cannot name a module: opening one must
    not run code.

    Raises:
        OptionError: if a module cannot be imported.
    """
    modules = list(modules)
    if modules and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    announced = [entry.value.partition(":")[0] for entry in entry_points(group="basicsr.plugins")]
    for name in [*announced, *modules]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise OptionError(f"plugin {name}: cannot be imported: {error}") from error


def registered(kind: str) -> Iterator[tuple[str, Any, str]]:
    """What is registered under ``kind``: (name, class or function, top-level package), sorted by name."""
    for name, member in sorted(registries()[kind]):
        yield name, member, member.__module__.partition(".")[0]


def lookup(kind: str, name: str, key: str) -> Any:
    """The class or function registered as ``name``.

    BasicSR registers a few of its own under ``NAME_basicsr``; those are found by their plain name, as there.

    Args:
        kind: one of ``KINDS``.
        name: the registered name, as an option file has it under ``type``.
        key: where the name stands, for the message (``train.pixel_opt.type``).

    Raises:
        OptionError: if nothing of that name is registered; the message offers the nearest names.
    """
    members = dict(iter(registries()[kind]))
    for candidate in (name, f"{name}_basicsr"):
        if candidate in members:
            return members[candidate]
    raise OptionError(f"{key}: no {kind} named '{name}' is registered{did_you_mean(name, members)}")


def did_you_mean(name: str, known: Any) -> str:
    """``; did you mean 'X'?`` for the name nearest to ``name`` and those about as near, or where to see them all."""

    lower = str(name)[:100].lower()  # no name is as long, and comparing takes the product of the lengths

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(None, lower, candidate.lower()).ratio()

    ranked = sorted(((likeness(str(candidate)), str(candidate)) for candidate in known), reverse=True)
    near = [candidate for ratio, candidate in ranked if ratio >= max(0.6, ranked[0][0] - 0.1)][:3]
    if not near:
        return "; `basicsr list` shows what there is"
    return "; did you mean " + " or ".join(f"'{candidate}'" for candidate in near) + "?"
