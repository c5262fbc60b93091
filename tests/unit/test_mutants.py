"""What `bench/mutate` makes of the program before mutmut changes it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from rendering import ROOT

from bench import mutants

MANAGER = """
import contextlib

@contextlib.contextmanager
def held(name):
    yield name

with held("used at once") as used:
    pass

class Other:
    @contextlib.contextmanager
    def held(self):
        yield self
"""


@pytest.mark.parametrize("part", mutants.PARTS)
def test_a_part_has_files_and_tests(part: str) -> None:
    files, tests = mutants.PARTS[part]
    assert all(list((ROOT / "src" / "slipway").glob(file)) for file in files)
    assert all(list((ROOT / "tests" / "unit").glob(test)) for test in tests)


def test_a_context_manager_is_one_still_and_its_function_has_no_decorator() -> None:
    text = mutants.undecorated(MANAGER)
    assert text.count("@contextlib.contextmanager") == 1, "a method keeps its own"
    assert "\n\ndef held(name):" in text
    known: dict[str, Any] = {}
    exec(text, known)
    with known["held"]("shop") as name:
        assert name == "shop"
    assert isinstance(known["held"]("shop"), contextlib.AbstractContextManager)
