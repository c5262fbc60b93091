"""What holds for the tests themselves: each comes to its end, and nothing happens before it is asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from rendering import ROOT

FILES = sorted(path for folder in ("tests", "molecule", "bench") for path in (ROOT / folder).rglob("*.py"))

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in a function or a module itself, without that of the functions and classes in it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from own(child)


def returns(tree: ast.AST) -> list[str]:
    """Return the tests that may end before what they are to see: such a case is skipped with a reason, or is no parameter."""
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return [test.name for test in tests if any(isinstance(node, ast.Return) for node in own(test))]


def started(tree: ast.AST) -> list[str]:
    """Return the processes that are started as soon as a file is imported, also where no test of it is run."""
    calls = [node for node in own(tree) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if ast.unparse(call.func).startswith(("subprocess.", "os.system", "podman"))]


def handed_on(tree: ast.AST) -> list[str]:
    """Return fixtures that are imported, and named so that nobody takes them away: they belong where both files see them."""
    named = [node for node in own(tree) if isinstance(node, ast.Assign)]
    return [ast.unparse(node) for node in named if "__all__" in map(ast.unparse, node.targets)]


FAULTS = {"returns": returns, "starts at import": started, "hands fixtures on": handed_on}


@each_file
@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_of_tests_has_no_fault(path: Path, fault: str) -> None:
    assert FAULTS[fault](ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("fault", "text", "found"),
    [
        ("returns", "def test_x(a):\n    if a:\n        return\n    assert a", ["test_x"]),
        ("returns", "class Testing:\n    def test_x(self):\n        with a:\n            return", ["test_x"]),
        ("returns", "def test_x():\n    def inner():\n        return 1\n    assert inner()", []),
        ("returns", "def helper():\n    return 1", []),
        ("starts at import", "BASE = subprocess.run(['x']).stdout", ["subprocess.run(['x'])"]),
        ("starts at import", "def base():\n    return subprocess.run(['x'])", []),
        ("hands fixtures on", "__all__ = ['shop']", ["__all__ = ['shop']"]),
    ],
)
def test_a_fault_is_found(fault: str, text: str, found: list[str]) -> None:
    assert FAULTS[fault](ast.parse(text)) == found
