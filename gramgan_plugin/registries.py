"""Access BasicSR's registries, and import the modules of third parties."""

import importlib
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gramgan_plugin.checkpoints.foreign_networks import foreign_architectures
from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import did_you_mean

KINDS = ("arch", "loss", "model", "dataset", "metric")


def registries() -> dict[str, Any]:
    """Return BasicSR's registries by kind (``arch``, ``loss``, ``model``, ``dataset``, ``metric``)."""
    from basicsr.utils import registry

    return {kind: getattr(registry, f"{kind.upper()}_REGISTRY") for kind in KINDS}


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import third parties' modules, which register their classes on import.

    The modules that installed packages declare in the entry-point group ``basicsr.plugins`` are imported first, then
    ``modules``, which may also be in the working directory. An option file cannot name a module, since reading one
    must not run code.

    Raises:
        OptionError: if a module cannot be imported.
    """
    modules = list(modules)
    if modules and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    declared = [entry.value.partition(":")[0] for entry in entry_points(group="basicsr.plugins")]
    for name in [*declared, *modules]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            hint = f"; write {name.removesuffix('.py')}, without .py" if name.endswith(".py") else ""
            raise OptionError(f"plugin {name}: cannot be imported: {error}{hint}") from error


def registered(kind: str) -> Iterator[tuple[str, Any, str]]:
    """Yield (name, class or function, top-level package) of each member of a registry, sorted by name."""
    for name, member in sorted(registries()[kind]):
        yield name, member, member.__module__.partition(".")[0]


def register_foreign_networks() -> None:
    """Register spandrel's architectures under the names that are not taken; the first time this takes seconds."""
    registry = registries()["arch"]
    taken = {name.removesuffix("_basicsr") for name, _ in registry}
    for name, cls in foreign_architectures().items():
        if name not in taken:
            registry._do_register(name, cls)  # under spandrel's name, which is not always the class's


def lookup(kind: str, name: str, key: str) -> Any:
    """Return the class or function registered as ``name``.

    BasicSR registers a few of its classes as ``NAME_basicsr``; as there, they are also found as ``NAME``. Networks
    that are not registered are looked for among spandrel's architectures, and registered.

    Args:
        kind: one of ``KINDS``.
        name: the registered name, the ``type`` in an option file.
        key: full path of the key, for the message (``train.pixel_opt.type``).

    Raises:
        OptionError: if the name is not registered; the message shows the nearest names.
    """
    for attempt in range(2):
        members = dict(iter(registries()[kind]))
        for candidate in (name, f"{name}_basicsr"):
            if candidate in members:
                return members[candidate]
        if kind == "arch" and attempt == 0:
            register_foreign_networks()
    raise OptionError(f"{key}: no {kind} named '{name}' is registered{did_you_mean(name, members)}")
