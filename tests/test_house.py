"""The rules of the house: no circle of imports, short signatures, names of modules that are found at once."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import gramgan_plugin

ROOT = Path(gramgan_plugin.__file__).parent
MOST_PARAMETERS = 10


def _name(path: Path) -> str:
    parts = (ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
PACKAGES = {_name(path) for path in ROOT.rglob("__init__.py")}


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Every import of our own modules, lazy ones too, but for those that only a type checker runs: module, name."""
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == ROOT.name:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == ROOT.name)


def test_no_circle_of_imports():
    graph = {
        name: {f"{module}.{member}" if f"{module}.{member}" in TREES else module for module, member in _imports(tree)}
        for name, tree in TREES.items()
    }
    assert sum(map(len, graph.values())) > 300
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError("modules import each other: " + " <- ".join(error.args[1])) from None


def test_imports_are_absolute():
    """Relative ones would escape the rules below and above, which read names."""
    assert not [
        f"{name}: {ast.unparse(node)}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def test_signatures_are_short():
    long = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            # Constructors are filled by the keys of option files.
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
                if count > MOST_PARAMETERS:
                    long.append(f"{name}.{node.name}: {count}")
    assert not long


def test_names_of_modules_are_unique():
    """But for those of commands, which are files of cli/ named after them."""
    modules = [name for name in TREES if name not in PACKAGES and not name.startswith(f"{ROOT.name}.cli.")]
    names = Counter(name.rpartition(".")[2] for name in modules)
    assert not [name for name, count in names.items() if count > 1]


def test_packages_re_export_nothing_to_each_other():
    """What a package's front lists is for users and for the registration; inside, modules name each other."""
    through_a_front = [
        f"{name}: from {module} import {member}"
        for name, tree in TREES.items()
        for module, member in _imports(tree)
        if module in PACKAGES and f"{module}.{member}" not in TREES and name != f"{ROOT.name}.registration"
    ]
    assert not through_a_front
