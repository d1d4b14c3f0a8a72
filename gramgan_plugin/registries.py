"""The one file that names BasicSR's registries: how a name is looked up there, and third parties' modules."""

import importlib
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.text import did_you_mean

KINDS = ("arch", "loss", "model", "dataset", "metric")


def registries() -> dict[str, Any]:
    """BasicSR's registries by kind (``arch``, ``loss``, ``model``, ``dataset``, ``metric``)."""
    from basicsr.utils import registry

    return {kind: getattr(registry, f"{kind.upper()}_REGISTRY") for kind in KINDS}


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
