"""The wording of all messages, held in one file that a maintainer can read as a whole."""

from __future__ import annotations

import ast

import messages
import pytest


def test_messages_are_those_of_the_golden_file() -> None:
    assert messages.listing() == messages.FILE.read_text(encoding="utf-8"), "run: python -m tests.unit.messages"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        pytest.param('raise Error(f"There is no {name} in {at.place}.")', ["There is no {name} in {place}."], id="filled in"),
        pytest.param("raise Error('No release is live. ' 'Deploy one.')", ["No release is live. Deploy one."], id="two lines"),
        pytest.param('"""What a module is for."""', [], id="docstring"),
        pytest.param("DOCUMENTATION = 'name: a plugin of ours'", [], id="documentation"),
        pytest.param("run(['systemctl', 'reload', 'nginx'])", [], id="command"),
        pytest.param("re.compile(r'no such (file|folder) (\\w+)')", [], id="pattern"),
    ],
)
def test_only_prose_counts_as_a_message(code: str, found: list[str]) -> None:
    assert [text for _, text in messages.strings(ast.parse(code)) if messages.is_prose(text)] == found
