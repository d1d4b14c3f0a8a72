"""Check Python, the packages and whether they work together."""

import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from gramgan_plugin import compat
from gramgan_plugin.diagnostics.diagnosis import Finding, named, ok, problem, warning
from gramgan_plugin.version import __version__

OURS = "gramgan-plugin"
PYTHONS = ((3, 11), (3, 12))

# Module -> distributions that provide it (the first is the one to install), and its purpose.
MODULES = {
    "torch": (("torch",), "everything is computed with it"),
    "torchvision": (("torchvision",), "BasicSR and the VGG19 weights need it"),
    "numpy": (("numpy",), "images are numpy arrays"),
    "cv2": (
        ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
        "images are decoded with it",
    ),
    "lmdb": (("lmdb",), "training sets are LMDBs"),
    "faiss": (("faiss-cpu", "faiss-gpu"), "the search for texture patches uses it"),
    "tensorboard": (("tensorboard", "tb-nightly"), "logger.use_tb_logger needs it"),
    "basicsr": (("basicsr",), "networks, metrics and models come from it"),
}
# Modules that only some features need -> the alternative to installing them.
OPTIONAL = {"tensorboard": "set logger.use_tb_logger: false, or "}
CURES = {
    "torchvision": "install versions that fit each other: pip install --upgrade --force-reinstall torch torchvision",
    "cv2": "pip install --force-reinstall opencv-python (on a machine without a screen: opencv-python-headless, or "
    "apt install libgl1)",
}
NEEDED = {"basicsr": "==1.4.2", "torch": ">=2.6"}  # used if this plugin is not installed
WHY_EXACT = {
    "torch": "before 2.6, reading a checkpoint can run code that is hidden in it (CVE-2025-32434)",
    "basicsr": "this plugin uses internals of BasicSR 1.4.2, its last release",
}


def packages() -> Iterator[Finding]:
    """Yield findings about Python, each package's version and import, active shims and conflicts."""
    yield python()
    bounds = requirements(OURS)
    if installed_version(OURS) is None:
        yield warning(
            OURS,
            f"{__version__}, not installed",
            "classes that it or others declare as entry points are not found",
            "pip install -e . in its checkout",
        )
    else:
        yield ok(OURS, __version__)
    for module, (distributions, purpose) in MODULES.items():
        yield package(module, distributions, purpose, bounds)
    yield from torch_pair()
    yield from shims()
    yield from conflicts()


def python() -> Finding:
    """Return a finding about Python's version."""
    shown = ".".join(map(str, python_version()))
    if python_version()[:2] in PYTHONS:
        return ok("Python", shown)
    if python_version()[:2] > PYTHONS[-1]:
        return warning(
            "Python",
            shown,
            "BasicSR 1.4.2 cannot be built on 3.13 and later: training and testing need it, the rest does not",
            "to train, make an environment with Python 3.11 or 3.12",
        )
    return problem("Python", shown, "this plugin needs 3.11", "make an environment with Python 3.11 or 3.12")


def package(module: str, distributions: tuple[str, ...], purpose: str, bounds: dict[str, str]) -> Finding:
    """Return a finding about one package: whether it is installed, its version fits, and it can be imported.

    Args:
        module: the imported name.
        distributions: the distributions that provide it; the first is named in the cure.
        purpose: why it is needed.
        bounds: version bounds by distribution, as ``requirements`` returns them.
    """
    present = {name: version for name in distributions if (version := installed_version(name)) is not None}
    bound = bounds.get(distributions[0], NEEDED.get(module, ""))
    install = OPTIONAL.get(module, "") + f"pip install '{distributions[0]}{bound}'"
    without = module == "basicsr" and python_version()[:2] > PYTHONS[-1]
    bad = warning if module in OPTIONAL or without else problem
    if not present:
        return bad(distributions[0], "not installed", purpose, install)
    name, version = next(iter(present.items()))
    if not fits(version, bound):
        reason = WHY_EXACT.get(module, f"{OURS} needs {bound}")
        return bad(name, f"{version}, not {bound}", reason, install)
    error = import_error(module)
    if error is not None:
        return bad(name, f"{version}, cannot be imported: {error}", purpose, CURES.get(module, install))
    return ok(name, version)


def torch_pair() -> Iterator[Finding]:
    """Yield a problem if the installed torchvision needs another torch."""
    torch, bound = installed_version("torch"), requirements("torchvision").get("torch", "")
    if torch is not None and not fits(torch, bound):
        reason = "torchvision's operators are compiled for one version of torch, and fail or crash with another"
        yield problem("torchvision", f"needs torch{bound}, {torch} is installed", reason, CURES["torchvision"])


def shims() -> Iterator[Finding]:
    """Yield the workarounds that this environment's packages have needed so far."""
    for name in compat.shims_in_force():
        yield ok("shim in force", f"{name}: {compat.REASONS[name]}")


def conflicts() -> Iterator[Finding]:
    """Yield packages that overwrite one another, and other commands named ``basicsr``."""
    opencvs = [name for name in MODULES["cv2"][0] if installed_version(name) is not None]
    if len(opencvs) > 1:
        yield warning(
            "OpenCV",
            f"{' and '.join(opencvs)} are both installed",
            "they write the same folder cv2/, and removing one breaks the other",
            f"pip uninstall {' '.join(opencvs)}, then pip install {opencvs[0]}",
        )
    providers = sorted(set(metadata.packages_distributions().get("basicsr", [])))
    if len(providers) > 1 or (providers and "basicsr" not in providers):
        yield problem(
            "BasicSR",
            f"the module basicsr comes from {' and '.join(providers)}",
            "they write the same folder basicsr/, which is then a mixture or not 1.4.2",
            f"pip uninstall {' '.join(providers)}, then pip install basicsr==1.4.2",
        )
    scripts = Path(sysconfig.get_path("scripts")).resolve()
    found = [script for folder in search_path() if (script := folder / "basicsr").is_file()]
    others = [script for script in found if script.parent.resolve() != scripts]
    if others:
        first = found[0] in others
        yield warning(
            "command",
            f"another `basicsr` at {', '.join(map(str, others))}",
            "the shell runs it instead of this one" if first else "the shell runs it if this environment is not active",
            f"remove it, or put {scripts} before it on PATH" if first else "remove it if you do not need it",
        )


def python_version() -> tuple[int, int, int]:
    """Return the version of the running Python."""
    return sys.version_info[:3]


def installed_version(distribution: str) -> str | None:
    """Return a distribution's version, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def import_error(module: str) -> str | None:
    """Return why a module cannot be imported, or None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a mismatched binary can raise anything
        return named(error)
    return None


def search_path() -> list[Path]:
    """Return the folders in which the shell searches for commands."""
    return [Path(folder) for folder in dict.fromkeys(os.get_exec_path())]


def requirements(distribution: str) -> dict[str, str]:
    """Return an installed distribution's requirements (``{"torch": ">=2.6,<3"}``), without extras.

    Those of some versions of Python alone (``; python_version < "3.13"``) are included.
    """
    try:
        declared = [Requirement(entry) for entry in metadata.requires(distribution) or []]
    except (metadata.PackageNotFoundError, InvalidRequirement):
        return {}
    return {entry.name: str(entry.specifier) for entry in declared if "extra" not in str(entry.marker or "")}


def fits(version: str, bound: str) -> bool:
    """Return whether a version is within bounds (PEP 440), pre-releases included.

    >>> fits("2.10.0+cu128", ">=2.6,<3"), fits("1.4.2.1", "==1.4.2"), fits("2.5.1", "~=2.4.0")
    (True, False, False)
    """
    try:
        return SpecifierSet(bound).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False
