"""The app is what its name says, or what the function of that name makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slipway.runtime.application import load

MODULE = """
async def app(scope, receive, send): ...

def create_app(): return "made"

def with_settings(debug=False): return "made with settings"

class Application:
    def __call__(self): raise AssertionError("an app is not called")

instance = Application()

class shop:
    @staticmethod
    def create(): return "made within"
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_shop.py").write_text(MODULE, encoding="ascii")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "some_shop", raising=False)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("create_app", "made"),
        ("create_app()", "made"),
        ("with_settings()", "made with settings"),
        ("shop.create()", "made within"),
    ],
)
def test_a_function_that_makes_the_app_is_called(name: str, made: str) -> None:
    assert load(f"some_shop:{name}") == made


def test_an_app_is_not_called() -> None:
    assert load("some_shop:app").__name__ == "app"
    assert type(load("some_shop:instance")).__name__ == "Application"


def test_what_is_named_as_a_function_and_is_none_is_an_error() -> None:
    with pytest.raises(TypeError):
        load("some_shop:__name__()")
