"""Read option files, and merge them and ``--force_yml`` into one dict."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gramgan_plugin.errors import OptionError
from gramgan_plugin.utils.io import expanded
from gramgan_plugin.utils.text import did_you_mean, shortened
from gramgan_plugin.utils.yaml_io import MOST_BYTES, parse_yaml

NOT_TOML = "TOML, but option files are YAML: `lr = 1e-4` is `lr: 1e-4`, `[train]` is `train:` with its keys indented"


def find_option_file(name: str) -> Path:
    """Return the path of the option file ``name``: in the working directory, or else in the package.

    ``options/train_gramgan_x4.yml``, ``train_gramgan_x4.yml`` and ``train_gramgan_x4`` all find the shipped file
    if the working directory has none of that name.

    Raises:
        OptionError: if there is no such file; the message names the nearest shipped ones.
    """
    path = expanded(name)
    if path.is_file():
        return path
    shipped = {Path(str(entry)).name: Path(str(entry)) for entry in files("gramgan_plugin.options").iterdir()}
    shipped = {base: entry for base, entry in shipped.items() if entry.suffix == ".yml"}
    base = path.name if path.suffix in (".yml", ".yaml") else f"{path.name}.yml"
    if path.parent in (Path(), Path("options")) and base in shipped:
        return shipped[base]
    raise OptionError(f"{name}: no such option file{did_you_mean(base, shipped)}")


def load_options(names: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read option files, merge them from left to right, and apply overrides.

    Args:
        names: option files, as for ``-opt``; later files are merged over earlier ones.
        overrides: ``KEY:SUBKEY=VALUE`` as for ``--force_yml``; the value is read as YAML.

    Raises:
        OptionError: if a file or an override cannot be read.
    """
    merged: dict[str, Any] = {}
    for name in names:
        merged = merge(merged, _read(find_option_file(name)))
    for override in overrides:
        apply_override(merged, override)
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode("utf-8")  # one byte more than parse_yaml accepts
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read: {error}") from error
    try:
        options = parse_yaml(text, str(path))
    except OptionError as error:
        if _is_toml(path, text):
            raise OptionError(f"{path}: {NOT_TOML}") from error
        raise
    if isinstance(options, dict):
        return options
    if _is_toml(path, text):
        raise OptionError(f"{path}: {NOT_TOML}")
    raise OptionError(f"{path}: an option file is a mapping of keys, this one is a {type(options).__name__}")


def _is_toml(path: Path, text: str) -> bool:
    if path.suffix.lower() == ".toml":
        return True
    try:
        return len(text) <= MOST_BYTES and bool(tomllib.loads(text))
    except (ValueError, RecursionError):
        return False


def merge(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Merge ``other`` into a copy of ``base``: sections are merged, everything else is replaced.

    A section with another ``type`` replaces the old one whole, since options of one class do not fit another.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    merged = dict(base)
    for key, value in other.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type"):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def apply_override(options: dict[str, Any], override: str) -> None:
    """Set one key in place, as in ``--force_yml train:optim_g:lr=1e-4``.

    The sections must exist; the last key may be new. The value is YAML: ``1e-4`` is a float, ``~`` is null, ``[1, 2]``
    is a list; ``!!float 3`` works as in upstream's files.

    Raises:
        OptionError: if there is no ``=``, or a section is missing.
    """
    given = f"--force_yml {shortened(' '.join(override.splitlines()), 300)}"
    path, equals, value = override.partition("=")
    keys = [key.strip() for key in path.split(":")]
    if not equals or not all(keys):
        raise OptionError(f"{given}: expected KEY:SUBKEY=VALUE, such as train:total_iter=1000")
    if len(keys) == 1 and "." in path and keys[0] not in options:
        raise OptionError(f"{given}: sections are separated by colons: {path.replace('.', ':')}={value}")
    section: Any = options
    for depth, key in enumerate(keys[:-1]):
        if not isinstance(section, dict) or not isinstance(section.get(key), dict):
            known = section if isinstance(section, dict) else {}
            where = ":".join(keys[: depth + 1])
            whole = f"; give it whole: --force_yml '{where}={{type: ...}}'" if depth else did_you_mean(key, known)
            raise OptionError(f"{given}: there is no section '{where}'{did_you_mean(key, known, whole)}")
        section = section[key]
    text = value.strip()
    # A template of file names: the shell has removed the quotes that YAML needs.
    section[keys[-1]] = text if text.startswith("{}") and text != "{}" else parse_yaml(text, given)
