"""The app that pyproject.toml names is served if app_module names none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail


def declare(app: Path, entry: str) -> None:
    (app / "pyproject.toml").write_text(f"[tool.fastapi]\nentrypoint = {entry}\n", encoding="ascii")


@pytest.mark.parametrize("name", ["shop.main:app", "main:create_app()", "shop.web:factory.app"])
def test_the_entrypoint_of_the_source_is_the_app(app: Path, fetch: Callable[..., dict[str, Any]], name: str) -> None:
    declare(app, f'"{name}"')
    assert fetch(app)["source"]["entrypoint"] == name


def test_that_of_the_apps_folder_counts(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    declare(app, '"other:app"')
    (app / "app" / "requirements.txt").write_text("fastapi\n", encoding="ascii")
    assert fetch(app, directory="app")["source"]["entrypoint"] == ""


def test_a_source_without_one_names_none(app: Path, fetch: Callable[..., dict[str, Any]]) -> None:
    assert fetch(app)["source"]["entrypoint"] == ""
    (app / "pyproject.toml").write_text("[tool]\nfastapi = 1\n", encoding="ascii")
    assert fetch(app)["source"]["entrypoint"] == ""


@pytest.mark.parametrize("entry", ['"main"', '"main:app;rm"', "3", '["main:app"]', '"app/main:app"'])
def test_one_that_cannot_be_an_app_is_refused_unless_app_module_is_set(
    app: Path, fetch: Callable[..., dict[str, Any]], entry: str
) -> None:
    declare(app, entry)
    with pytest.raises(AnsibleActionFail, match=r"entrypoint of \[tool.fastapi\] in pyproject.toml is .*app_module"):
        fetch(app)
    assert fetch(app, module="app.main:app")["source"]["entrypoint"] == ""
