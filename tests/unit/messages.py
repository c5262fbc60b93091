"""All wording of the program in one file, tests/messages.txt, so that it can be read and reviewed as a whole.

Run `python -m tests.unit.messages` to write the file anew after a message was changed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "messages.txt"
SOURCES = ("src/slipway", "plugins")

# A string with as many words is a message; a shorter one is a name, or part of a command.
FEWEST_WORDS = 3

# Names of a plugin's documentation, which ansible-doc shows and ansible-test checks.
DOCUMENTATION = frozenset({"DOCUMENTATION", "EXAMPLES", "RETURN", "COMPLETION"})


def spelled(node: ast.expr) -> str:
    """Return a string as it is in the source, with the names of what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    parts = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            name = part.value
            while isinstance(name, ast.Call) and name.args:
                name = name.args[0]
            label = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else "..."
            if isinstance(name, ast.Subscript) and isinstance(name.slice, ast.Constant):
                label = str(name.slice.value)
            parts.append(f"{{{label}}}")
        else:
            parts.append(spelled(part))
    return "".join(parts)


def is_prose(text: str) -> bool:
    """Say whether a string is a sentence, or part of one, and not a pattern, a command or a list of names."""
    words = re.findall(r"(?<![\w/.\\-])[A-Za-z][a-z']+(?![\w/\\=*-])", text)
    return len(words) >= FEWEST_WORDS and not re.search(r"\\[swdS(]|\(\?|^#!|^/|^  |\|\w+\|", text)


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string, except docstrings and documentation, in the order of the source."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped.add(id(first.value))
        if isinstance(node, ast.Assign) and {getattr(target, "id", "") for target in node.targets} & DOCUMENTATION:
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if is_text and id(node) not in skipped:
            assert isinstance(node, ast.expr)
            yield node.lineno, spelled(node)


def messages(file: Path) -> list[str]:
    """Return the messages of a file, in the order of its lines."""
    found = sorted(strings(ast.parse(file.read_text(encoding="utf-8"))), key=lambda each: each[0])
    return list(dict.fromkeys(text.strip() for _, text in found if is_prose(text)))


def listing() -> str:
    """Return the whole file: each source with its messages, whose further lines are indented."""
    parts = []
    for file in sorted(path for source in SOURCES for path in (ROOT / source).rglob("*.py")):
        found = messages(file)
        if found:
            lines = "\n".join(f"- {text.replace(chr(10), chr(10) + '  ')}" for text in found)
            parts.append(f"{file.relative_to(ROOT)}\n{lines}\n")
    return "\n".join(re.sub(r"(?m) +$", "", part) for part in parts)


if __name__ == "__main__":
    FILE.write_text(listing(), encoding="utf-8")
