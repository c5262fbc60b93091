"""The words of docs/vocabulary.md: no name in the program uses one that it replaces."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Parts of a name that have a better word, and pairs of parts. `tell` is missing: it is a method of each open file.
NEVER = frozenset(
    re.findall(
        r"\w+",
        """
        busy claim claims door doors ear failing had have heard held hold holds ill lame look looks problem problems room said say
        says settle silent speak spoken telling tells told trouble troubles turn turns undo usable vouch voucher vouchers wanted
        way ways well wrong
        """,
    )
)
NEVER_TOGETHER = frozenset({("take", "back"), ("go", "back"), ("let", "go"), ("way", "back"), ("try", "out"), ("carry", "out")})

FILES = sorted(str(path.relative_to(ROOT)) for source in ("src/slipway", "plugins") for path in (ROOT / source).rglob("*.py"))


def names(tree: ast.AST) -> Iterator[str]:
    """Yield each name that a file gives to something, or uses."""
    for node in ast.walk(tree):
        for attribute in ("name", "id", "attr", "arg"):
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                yield name


def refused(name: str) -> bool:
    """Say whether a name has a part that the vocabulary replaces."""
    parts = [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    return bool(NEVER & {*parts} or NEVER_TOGETHER & {*itertools.pairwise(parts)})


@pytest.mark.parametrize("file", FILES)
def test_names_use_no_word_that_the_vocabulary_replaces(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert sorted({name for name in names(tree) if refused(name)}) == []


@pytest.mark.parametrize(
    ("name", "is_refused"),
    [("take_back", True), ("TakeBack", True), ("told_to", True), ("Door", True), ("always", False), ("back", False)],
)
def test_a_name_is_refused_by_its_whole_parts(name: str, is_refused: bool) -> None:
    assert refused(name) is is_refused


# What an operator reads: messages, and the names and messages of tasks. Words with an ordinary meaning, too, are left out.
NEVER_READ = re.compile(
    r"(?i)\b(?:doors?|vouch\w*|claim\w*|lame|silent|trouble\w*|undo|undone|ways? back|ways? to serve|tell|tells|told|said"
    r"|(?:take|takes|taken|took|go|goes|gone|going|went) back|let go|try out|carry out)\b"
)
YAML = sorted(path for pattern in ("roles/*/tasks/*.yml", "playbooks/**/*.yml") for path in ROOT.glob(pattern))


def messages() -> Iterator[tuple[str, str]]:
    """Yield each message of the program, with the file that has it."""
    for section in (ROOT / "tests/messages.txt").read_text(encoding="utf-8").split("\n\n"):
        file, _, text = section.partition("\n")
        yield file, text


def test_messages_use_no_word_that_the_vocabulary_replaces() -> None:
    assert [(file, found) for file, text in messages() for found in NEVER_READ.findall(text)] == []


@pytest.mark.parametrize("path", YAML, ids=lambda path: "/".join(path.parts[-3:]))
def test_tasks_use_no_word_that_the_vocabulary_replaces(path: Path) -> None:
    # A command that is not ours may be called so.
    text = path.read_text(encoding="utf-8").replace("kubectl rollout undo", "")
    assert NEVER_READ.findall(re.sub(r"(?m)(^|\s)#.*$", "", text)) == []
