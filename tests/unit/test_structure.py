"""How the program is divided: files that fit a head, and imports that go one way."""

from __future__ import annotations

import ast
import graphlib

import pytest
from rendering import ROOT

SOURCE = ROOT / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

PLUGINS = sorted(ROOT.glob("plugins/*/*.py"))

MOST_LINES, MOST_LINES_OF_A_CLASS = 300, 200
MOST_LINES_OF_A_PLUGIN = 80


def imported(name: str, tree: ast.AST, modules: set[str]) -> set[str]:
    """Return which of `modules` a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{name} names what it imports by where itself lies"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & modules or {node.module}
    return found & modules - {name}


def circle(trees: dict[str, ast.AST]) -> list[str]:
    """Return modules that import each other round and round; empty if none do."""
    graph = {name: imported(name, tree, set(trees)) for name, tree in trees.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_of_the_program_import_each_other() -> None:
    found = circle({name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()})
    assert not found, " imports ".join(reversed(found))


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({"a": "import b", "b": "import c", "c": ""}, set()),
        ({"a": "import b", "b": "def late():\n    from c import name", "c": "from a import other"}, {"a", "b", "c"}),
        ({"a": "from a import b", "a.b": "from a import name"}, {"a", "a.b"}),
        ({"a": "", "a.b": "from a import c", "a.c": "from a.d import name", "a.d": ""}, set()),
    ],
)
def test_circles_are_found(texts: dict[str, str], found: set[str]) -> None:
    assert set(circle({name: ast.parse(text) for name, text in texts.items()})) == found


def test_no_file_of_the_program_is_long() -> None:
    found = {name for name, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES}
    assert found == set()


def test_no_class_of_the_program_is_long() -> None:
    found = set()
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_CLASS:
                found.add(f"{name}.{node.name}")
    assert found == set()


def test_plugins_leave_the_work_to_the_program() -> None:
    lengths = {"/".join(path.parts[-2:]): len(path.read_text(encoding="utf-8").splitlines()) for path in PLUGINS}
    assert {name for name, length in lengths.items() if length > MOST_LINES_OF_A_PLUGIN} == set()
